"""TensorRT through Torch-TensorRT, beside PyTorch: its precision, and what PyTorch runs.

    pip install 'precisionbench[torch-tensorrt]'
    python examples/torch_tensorrt_half.py [BATCH_SIZE] [MODEL]

Without Torch-TensorRT or a GPU its rows fail, with what to do.
"""

import argparse

import torch

import precisionbench as pb
from precisionbench.backends.torch_tensorrt import TorchTensorRT

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=8)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()

comparison = pb.compare(
    given.model,
    batch_size=given.batch_size,
    device="cuda" if torch.cuda.is_available() else "cpu",
    backends=["half", TorchTensorRT("fp16"), TorchTensorRT("fp16", autocast=True)],
)
print(comparison)

for row in comparison.results:
    print(row.backend, row.details.get("layer_precision", ""), row.details.get("operators", ""))
for label in pb.diagnose(comparison).labels:
    print(label.row, label.verdict, label.ran)
