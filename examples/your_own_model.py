"""Your own model, with keyword inputs and a dict as output; save the result and load it.

python examples/your_own_model.py [FILE.json]
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("file", nargs="?")
given = parser.parse_args()


class Classifier(nn.Module):
    """A small transformer over token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, *, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(self.embedding(input_ids))
        return {"logits": self.head(hidden.mean(1)), "hidden": hidden}


model = Classifier()  # in training mode, on the CPU: precisionbench measures copies
inputs = {"input_ids": torch.randint(0, 1000, (16, 32))}  # integers stay integers

comparison = pb.compare(model, inputs, backends=["half:dtype=bfloat16"])
print(comparison)

agreement = comparison["half:dtype=bfloat16"].agreement
assert agreement is not None  # it is None only where the reference itself failed
for tensor in agreement.tensors:
    print(
        f"output{tensor.path}: cosine {tensor.cosine:.5f}, largest error {tensor.max_abs_error:.3f}"
    )

file = given.file or Path(tempfile.mkdtemp()) / "result.json"
comparison.save(file)
print(f"saved to {file}; show it with: precisionbench show {file}")
assert pb.load(file) == comparison
