"""A model whose arguments and results are of kinds that exporters get wrong."""

from __future__ import annotations

import torch
from torch import nn


class OddModel(nn.Module):
    """An input that is not used, one that is returned, and an output that is returned twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(
        self, named: dict[str, list[torch.Tensor]], unused: torch.Tensor, scale: float
    ) -> tuple[object, ...]:
        x = named["x"][0]
        y = self.linear(x) * scale
        return x, y, {"again": y, "positive": y > 0, "largest": y.argmax(-1)}


def odd_model() -> tuple[OddModel, tuple[object, ...]]:
    """The model and its arguments."""
    torch.manual_seed(0)
    return OddModel().eval(), ({"x": [torch.rand(4, 8)]}, torch.rand(3), 2.0)
