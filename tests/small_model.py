"""A model for tests in which any model would do, as `small_model:build`."""

from __future__ import annotations

import torch
from torch import nn


def build(batch_size: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """One convolution and one linear layer, for images of ImageNet's size."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return model, torch.rand(batch_size, 3, 224, 224)
