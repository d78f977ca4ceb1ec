"""Models for `planted_causes.py`: compiled ones, mixed dtypes, and torch's settings.

Each comes with a look-alike in which nothing is wrong. On a machine without a GPU they are small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ON_GPU = torch.cuda.is_available()
WIDTH = 4096 if ON_GPU else 512


def _gelu_in_steps(x: torch.Tensor) -> torch.Tensor:
    inner = 0.7978845608 * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + torch.tanh(inner))


def _nothing(x: torch.Tensor) -> torch.Tensor:
    return x


class Broken(nn.Module):
    """A graph break between two matmuls: with pointwise work in it, or with none."""

    def __init__(self, works: bool = True) -> None:
        super().__init__()
        width = WIDTH // 2 if works else WIDTH
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, width)
        self.between: Any = torch.compiler.disable(_gelu_in_steps if works else _nothing)
        self.example = torch.Size((WIDTH, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))  # type: ignore[no-any-return]


def broken(works: bool = True) -> Any:
    model = Broken(works)
    return model, torch.randn(model.example)


class Counting(nn.Module):
    """Counts its calls: in a Python number, or in a buffer."""

    calls: Any

    def __init__(self, python: bool = True) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)
        if python:
            self.calls = 0
        else:
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(x) + 0 * self.calls  # type: ignore[no-any-return]


def tiny() -> Any:
    """A call of two small matmuls."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), torch.randn(16, 64)


class Pointwise(nn.Module):
    """Pointwise operations on a large tensor, which compiling fuses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = torch.relu(x * 0.5 + 1)
        return x


class Windowed(nn.Module):
    """Multiplies by a window that is no buffer, so that nothing casts it with the model."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        window = torch.hann_window(WIDTH, dtype=torch.float64)
        self.window = window.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.window = self.window.to(x.device)  # once: nothing moves it with the model, either
        return torch.relu(x * self.window) * 3.0 + 1


class Ramp(nn.Module):
    """Multiplies by numbers that forward creates: in float32, or in the dtype of its input."""

    def __init__(self, own_dtype: bool = False) -> None:
        super().__init__()
        self.body, self.own_dtype = nn.Linear(WIDTH, WIDTH), own_dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        dtype = x.dtype if self.own_dtype else torch.float32
        return torch.relu(x * torch.linspace(0, 1, WIDTH, dtype=dtype, device=x.device))


class Codes(nn.Module):
    """int8 weights in a buffer that every call casts, or that were cast beforehand."""

    codes: torch.Tensor

    def __init__(self, cast_once: bool = False) -> None:
        super().__init__()
        weight = torch.randn(WIDTH, WIDTH) / WIDTH**0.5
        self.scale = float(weight.abs().max() / 127)
        codes = (weight / self.scale).round().to(torch.int8)
        self.register_buffer("codes", codes.float() if cast_once else codes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = nn.functional.linear(x, self.codes.to(x.dtype)) * self.scale
        return x


class AddedByIndex(nn.Module):
    """Adds rows at indices, for which a deterministic algorithm sorts them first."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x).index_add(0, index, x)


def added_by_index() -> Any:
    return AddedByIndex(), (torch.randn(65536, 256), torch.randint(0, 1024, (65536,)))


class Attention(nn.Module):
    """Attention by torch's own function, which chooses a kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def attention() -> Any:
    length = 2048 if ON_GPU else 256
    return Attention(), torch.randn(4, 16, length, 64)


def long_reduction() -> Any:
    """A matmul with a small result and a long inner dimension, whose sums cuBLAS splits."""
    return nn.Linear(16 * WIDTH, 256, bias=False), torch.randn(256, 16 * WIDTH)


def cpu_matmuls() -> Any:
    parts = [nn.Linear(1024, 1024, bias=False) for _ in range(2)]
    return nn.Sequential(*parts), torch.randn(256, 1024)
