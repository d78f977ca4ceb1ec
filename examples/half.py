"""Half precision, in both 16-bit types and both memory layouts.

python examples/half.py [BATCH_SIZE] [MODEL]
"""

import sys

import precisionbench as pb
from precisionbench.backends.half import Half

batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else None
model = sys.argv[2] if len(sys.argv) > 2 else "torchvision:resnet50"

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
print(f"half is {speedup.low:.2f} to {speedup.high:.2f} times as fast as float32 here")
