"""The experiment that led to this library, without its errors.

ResNet-50 with random weights, a batch of 100 images, Apex O3, O2, O1, O0 and plain float32. In the
original all five rows took the same time, because Apex O1 patches torch for the whole process, so
the later row "Float32" ran in half precision. Here each backend is undone before the next one, so
the order does not matter.

    python examples/founding_experiment.py [BATCH_SIZE] [MODEL]
"""

import argparse

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=100)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

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
