"""Models for `planted_causes.py`: attention, recurrent layers, norms, and calls that differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

HEADS = 8


class SelfAttention(nn.Module):
    """softmax(Q K^T) V in separate operations, or in torch's function."""

    def __init__(self, size: int = 64, how: str = "written") -> None:
        super().__init__()
        self.size, self.how = size, how
        self.projection = nn.Linear(HEADS * size, 3 * HEADS * size)
        self.mask = nn.Buffer(torch.ones(1024, 1024).tril().log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.projection(x).unflatten(-1, (3, HEADS, self.size)).unbind(-3)
        query, key, value = (part.transpose(1, 2) for part in parts)
        if self.how == "written":
            scores = query @ key.transpose(-1, -2) / math.sqrt(self.size)
            output = torch.softmax(scores, -1) @ value
        else:
            length = x.shape[1]
            mask = self.mask[:length, :length].to(x.dtype) if self.how == "masked" else None
            output = functional.scaled_dot_product_attention(query, key, value, mask)
        joined: torch.Tensor = output.transpose(1, 2).flatten(2)
        return joined


def attention(size: int = 64, how: str = "written") -> Any:
    return SelfAttention(size, how), torch.randn(16, 1024, HEADS * size)


class AttentionWithWeights(nn.Module):
    """Asks for the weights of attention and does not use them."""

    def __init__(self, need_weights: bool = True) -> None:
        super().__init__()
        self.body, self.need_weights = nn.MultiheadAttention(512, 8, batch_first=True), need_weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x, x, x, need_weights=self.need_weights)[0]  # type: ignore[no-any-return]


class MixtureOfExperts(nn.Module):
    """A softmax between two matmuls that is not attention: it weighs experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(1024, 8)
        self.experts = nn.Parameter(torch.randn(8, 1024, 1024) / 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.gate(x), -1)
        each = torch.bmm(x.expand(8, *x.shape), self.experts)
        return torch.einsum("be,ebo->bo", weights, each)


class Recurrent(nn.Module):
    """An LSTM, with its weights in one block of memory or in several."""

    def __init__(self, width: int, packed: bool = True) -> None:
        super().__init__()
        self.body, self.packed = nn.LSTM(width, width), packed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.body._flat_weights
        if not self.packed and weights[0] is self.body.weight_ih_l0:
            self.body._flat_weights = [weight.clone() for weight in weights if weight is not None]
        return self.body(x)[0]  # type: ignore[no-any-return]


class AddedByIndex(nn.Module):
    """Adds each element to one that an index chooses; many are added to the same one."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.body = nn.Linear(64, 64)
        self.rows = rows

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return x.new_zeros(self.rows, x.shape[1]).scatter_add(0, index, x)


def added_by_index(rows: int = 1000, count: int = 200_000) -> Any:
    return AddedByIndex(rows), (torch.randn(count, 64), torch.randint(0, rows, (count, 64)))


def normalised_convolutions(norm: Any, channels: int = 256, batch: int = 32) -> Any:
    parts: list[nn.Module] = []
    for _ in range(4):
        parts += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)]
    return nn.Sequential(*parts), torch.randn(batch, channels, 56, 56)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


class Uneven(nn.Module):
    """Makes a table anew in every tenth call, or in none."""

    def __init__(self, period: int | None = 10) -> None:
        super().__init__()
        self.body, self.period, self.calls = nn.Linear(1024, 1024), period, 0
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or (self.period and self.calls % self.period == 0):
            self.table = torch.eye(1024, dtype=x.dtype, device=x.device)
            for _ in range(20):
                self.table = self.table @ self.table
        self.calls += 1
        y: torch.Tensor = self.body(x) @ self.table
        return y


def scaled_linear(scale: float) -> Any:
    """Weights of one size: numbers below 1.2e-38 are denormal in float32."""
    model = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(4)))
    for parameter in model.parameters():
        parameter.data *= scale
    return model, torch.randn(32, 512)


class Angles(nn.Module):
    """A function between two GEMMs; CUDA's provider of ONNX Runtime has no kernel for atan.

    Args:
        function: of one tensor.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4096, 4096), nn.Linear(4096, 4096)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.function(self.first(x)))  # type: ignore[no-any-return]


def weight_normed(width: int = 1024, batch: int = 8, norm: bool = True) -> Any:
    """Linear layers with few rows, whose weights are normalised in every call."""
    layers = [nn.Linear(width, width) for _ in range(4)]
    if norm:
        layers = [parametrizations.weight_norm(layer) for layer in layers]
    return nn.Sequential(*layers), torch.randn(batch, width)


def normed_rows(width: int = 64, rows: int = 16384) -> Any:
    """Narrow linear layers with norms and activations: bound by memory."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.LayerNorm(width)]
    return nn.Sequential(*layers), torch.randn(rows, width)
