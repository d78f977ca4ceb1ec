"""A small transformer over token numbers, which any exporter can export."""

from __future__ import annotations

import torch
from torch import nn


class SmallTransformer(nn.Module):
    """An embedding, one block with attention, and a head; a mapping as its output."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, width)
        self.projections = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 40)

    def forward(self, tokens: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embedding(tokens) * scale
        batch, length, width = x.shape
        heads = self.projections(x).reshape(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = self.norm(x + self.mixed(attended.transpose(1, 2).reshape(batch, length, width)))
        return {"logits": self.head(x), "hidden": x}


def small_transformer(
    width: int = 32,
) -> tuple[SmallTransformer, tuple[torch.Tensor], dict[str, torch.Tensor]]:
    """The model and its arguments; in a wide one, attention is a small part of the time."""
    torch.manual_seed(0)
    tokens = torch.arange(24).reshape(2, 12) % 40
    return SmallTransformer(width).eval(), (tokens,), {"scale": torch.full((2, 1, 1), 1.5)}
