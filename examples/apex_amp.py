"""NVIDIA Apex's automatic mixed precision beside plain half precision.

Apex O1 patches torch for the whole process; here that is undone before the next row. It needs a
GPU and the Python package apex/ of NVIDIA/apex at tag 25.05 on the path.

    python examples/apex_amp.py [BATCH_SIZE] [MODEL]
"""

import sys

import precisionbench as pb

batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else None
model = sys.argv[2] if len(sys.argv) > 2 else "torchvision:resnet50"

comparison = pb.compare(
    model, batch_size=batch_size, backends=["apex-amp:opt_level=O1", "eager", "half"]
)
print(comparison)

for failure in comparison.failures:
    print(f"\n{failure.backend} did not run, because it {failure.reason}")
