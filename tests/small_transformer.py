"""A small transformer over token numbers, which any exporter can export."""

from __future__ import annotations

import torch
from torch import nn


class SmallTransformer(nn.Module):
    """An embedding, one block with attention, and a head; a mapping as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 32)
        self.projections = nn.Linear(32, 96)
        self.mixed = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 40)

    def forward(self, tokens: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embedding(tokens) * scale
        batch, length, _ = x.shape
        heads = self.projections(x).reshape(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = self.norm(x + self.mixed(attended.transpose(1, 2).reshape(batch, length, 32)))
        return {"logits": self.head(x), "hidden": x}


def small_transformer() -> tuple[SmallTransformer, tuple[torch.Tensor], dict[str, torch.Tensor]]:
    """The model and its arguments."""
    torch.manual_seed(0)
    tokens = torch.arange(24).reshape(2, 12) % 40
    return SmallTransformer().eval(), (tokens,), {"scale": torch.full((2, 1, 1), 1.5)}
