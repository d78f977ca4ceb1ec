"""Eager PyTorch in IEEE float32 and in TF32, which NVIDIA GPUs support since Ampere.

python examples/eager.py [BATCH_SIZE] [MODEL]
"""

import argparse

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

comparison = pb.compare(model, batch_size=batch_size, backends=["eager", "eager:precision=tf32"])
print(comparison)

fp32 = comparison["eager"]
print(f"IEEE float32: {fp32.latency.value * 1e3:.2f} ms, built in {fp32.measurement.build_s:.2f} s")
