"""The experiment this library was founded on, in clean form.

ResNet-50 with random weights, a batch of 100 images, Apex O3, O2, O1, O0 and plain float32. In the
original all five rows took the same time, because Apex O1 patches torch for the whole process and
the "Float32" that ran after it ran in half. Here each backend is undone before the next, so the
order does not matter.

    python examples/founding_experiment.py [BATCH_SIZE] [MODEL]
"""

import sys

import precisionbench as pb

batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else 100
model = sys.argv[2] if len(sys.argv) > 2 else "torchvision:resnet50"

comparison = pb.compare(
    model,
    batch_size=batch_size,
    backends=[
        "apex-amp:opt_level=O3",
        "apex-amp:opt_level=O2",
        "apex-amp:opt_level=O1",
        "apex-amp:opt_level=O0",
        "eager",
    ],
)
print(comparison)
