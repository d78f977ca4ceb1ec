"""Every backend that is installed, with its default options, in one table.

python examples/compare_all.py [BATCH_SIZE] [MODEL]
"""

import sys

import precisionbench as pb

batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else None
model = sys.argv[2] if len(sys.argv) > 2 else "torchvision:resnet50"

for backend in pb.list_backends():
    state = "ready" if backend.available else f"needs {backend.requirement}"
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
