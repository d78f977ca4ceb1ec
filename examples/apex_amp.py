"""NVIDIA Apex's automatic mixed precision beside plain half precision.

Apex O1 patches torch for the whole process; here the patches are removed before the next row. It
needs a GPU, and the Python package apex/ of NVIDIA/apex at tag 25.05 on the path.

    python examples/apex_amp.py [BATCH_SIZE] [MODEL]
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

comparison = pb.compare(
    model, batch_size=batch_size, backends=["apex-amp:opt_level=O1", "eager", "half"]
)
print(comparison)

for failure in comparison.failures:
    print(f"\n{failure.backend} did not run: {failure.reason}")
