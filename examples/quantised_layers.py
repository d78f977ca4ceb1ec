"""Linear layers quantised by torchao, and INT8 by PT2E, beside PyTorch.

    pip install 'precisionbench[torchao]'
    python examples/quantised_layers.py [BATCH_SIZE] [MODEL]

Rows that cannot run here are listed with the reason: FP8 needs a GPU of compute capability 8.9,
and PT2E runs on an x86 CPU.
"""

import argparse

import torch

import precisionbench as pb
from precisionbench.backends.pt2e import Pt2e
from precisionbench.backends.torchao import TorchAo

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=8)
parser.add_argument("model", nargs="?", default="torchvision:vit_b_16")
given = parser.parse_args()

# Stand-ins for real, preprocessed images. Each batch has the shape that will be measured.
calibration = [torch.rand(given.batch_size, 3, 224, 224) for _ in range(4)]

comparison = pb.compare(
    given.model,
    batch_size=given.batch_size,
    backends=[
        TorchAo(),
        TorchAo("int8-weight-only"),
        TorchAo("float8"),
        Pt2e(calibration_data=calibration),
    ],
)
print(comparison)

for row in comparison.results:
    print(row.backend, row.details.get("weight_shares", ""), row.details.get("float_layers", ""))
for label in pb.diagnose(comparison).labels:
    print(label.row, label.verdict, label.ran)
