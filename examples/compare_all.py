"""Every backend that is installed, with its default options, in one table.

python examples/compare_all.py [BATCH_SIZE] [MODEL]
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

for backend in pb.list_backends():
    state = "available" if backend.available else f"not available: requires {backend.requirement}"
    print(f"{backend.name}: {state}")
print()

names = [backend.name for backend in pb.list_backends()]
comparison = pb.compare(
    model,
    batch_size=batch_size,
    backends=names,
    on_progress=lambda step: print(f"{step.position}/{step.total} {step.backend} {step.stage}"),
)
print()
print(comparison)
