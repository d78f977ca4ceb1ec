"""Plain PyTorch: true float32, and TF32, which NVIDIA GPUs since Ampere can use in its place.

python examples/eager.py [BATCH_SIZE] [MODEL]
"""

import sys

import precisionbench as pb

batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else None
model = sys.argv[2] if len(sys.argv) > 2 else "torchvision:resnet50"

comparison = pb.compare(model, batch_size=batch_size, backends=["eager", "eager:precision=tf32"])
print(comparison)

fp32 = comparison["eager"]
print(f"IEEE float32: {fp32.latency.value * 1e3:.2f} ms, built in {fp32.measurement.build_s:.2f} s")
