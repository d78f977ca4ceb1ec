"""Two small models for the noise trials; they need torch only."""

from __future__ import annotations

import torch
from torch import nn

_CHANNELS, _SIZE, _DEPTH = 64, 56, 8
_FEATURES, _LAYERS = 64, 20


def convolutions(batch: int) -> tuple[nn.Module, torch.Tensor]:
    """Eight convolutions of ResNet-50's first stage: device-bound.

    Args:
        batch: number of images; 64 of them are 118 GFLOP.
    """
    layers: list[nn.Module] = []
    for _ in range(_DEPTH):
        layers += [
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers), torch.rand(batch, _CHANNELS, _SIZE, _SIZE)


def many_small() -> tuple[nn.Module, torch.Tensor]:
    """Twenty tiny layers with batch size 1: host-bound."""
    layers: list[nn.Module] = []
    for _ in range(_LAYERS):
        layers += [nn.Linear(_FEATURES, _FEATURES), nn.ReLU()]
    return nn.Sequential(*layers), torch.rand(1, _FEATURES)
