"""Tests of a model's speed and accuracy in CI. Copy this file, and insert your model.

pytest examples/in_ci --precisionbench-baselines baselines --precisionbench-save
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.pytest_plugin import PrecisionBenchmark

FAST = "half:memory_format=channels_last"


def model() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, more in ((3, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(channels, more, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_bfloat16_is_accurate_enough(precision_benchmark: PrecisionBenchmark) -> None:
    comparison = precision_benchmark(
        model(), images(2), backends=["half:dtype=bfloat16"], device="cpu", budget_s=4
    )
    pb.assert_agrees(comparison, "half:dtype=bfloat16", relative_l2=0.03)


@pytest.mark.precision_device("cuda")
def test_half_is_worth_it(precision_benchmark: PrecisionBenchmark) -> None:
    comparison = precision_benchmark(model(), images(256), backends=[FAST])
    pb.assert_speedup(comparison, FAST, at_least=1.5)
    pb.assert_agrees(comparison, FAST, relative_l2=5e-3)
