"""Half precision, in both 16-bit types and both memory layouts.

python examples/half.py [BATCH_SIZE] [MODEL]
"""

import argparse

import precisionbench as pb
from precisionbench.backends.half import Half

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

comparison = pb.compare(
    model,
    batch_size=batch_size,
    backends=[
        "half",
        Half("bfloat16"),  # a backend may be an object as well as a spec
        Half(memory_format="channels_last"),
    ],
)
print(comparison)

speedup = comparison.speedup("half")
print(f"half: {speedup.low:.2f}x to {speedup.high:.2f}x the speed of float32 (95 % CI)")
