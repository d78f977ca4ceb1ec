"""What a run of values over time looks like."""

from __future__ import annotations

import random

import pytest

from precisionbench.statistics import (
    Steadiness,
    bimodality,
    carryover,
    drift,
    has_settled,
    outliers,
)
from precisionbench.statistics.series import change_points, steadiness


def noisy(levels: list[float], seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [level * (1 + draw.gauss(0, 0.001)) for level in levels]


@pytest.mark.parametrize(
    ("levels", "state"),
    [
        ([1.0] * 20, Steadiness.FLAT),
        ([1.05] * 6 + [1.0] * 14, Steadiness.WARMUP),
        ([1.0] * 12 + [1.05] * 8, Steadiness.SLOWDOWN),
        ([1.0] * 7 + [1.05] * 7 + [1.0] * 6, Steadiness.NO_STEADY_STATE),
        ([1.0, 2.0, 1.0], Steadiness.FLAT),
    ],
)
def test_steadiness_of_a_row_over_time(levels, state):
    assert steadiness(noisy(levels)) is state


def test_equal_values_have_no_change_point():
    assert change_points([1.0] * 10) == [0, 10]


def test_drift_is_from_first_to_last_and_robust_to_an_outlier():
    values = [1 + 0.01 * i for i in range(11)]
    values[5] = 9.0
    assert drift(values) == pytest.approx(0.1 / 1.05, rel=0.1)
    assert drift([1.0]) == 0.0


def test_warm_up_has_settled_when_its_halves_agree():
    assert not has_settled([1.0] * 7)
    assert has_settled([2.0, 1.5, *[1.0] * 8])
    assert not has_settled([1.08, 1.07, 1.06, 1.05, 1.03, 1.02, 1.01, 1.0])
    stepping = [1.0] * 4 + [1.006] * 4
    assert not has_settled(stepping)
    assert has_settled(stepping, noise=0.01)


def test_outliers_are_counted_and_kept():
    found = outliers([1.0, 1.01, 0.99] * 20 + [9.0])
    assert (found.count, found.total) == (1, 61)
    assert found.mean > found.median
    assert outliers([1.0] * 5).count == 0


def test_carryover_needs_several_blocks_after_each_predecessor():
    assert not carryover([1.0, 2.0, 1.0, 2.0], ["a", "b", "a", "b"], 0.01)
    assert not carryover([1.0] * 12, ["a", "b"] * 6, 0.01)


def draws(count: int, draw) -> list[float]:
    source = random.Random(1)
    return [draw(source) for _ in range(count)]


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: r.gauss(1, 0.05),
        lambda r: r.uniform(0.9, 1.1),
        lambda r: 1 + r.expovariate(20),
        lambda r: 1 + 0.002 * r.choice((-1, 1)),
        lambda r: 1.5 if r.random() < 0.03 else r.gauss(1, 0.01),
    ],
    ids=["normal", "uniform", "exponential", "two processes on a GPU", "a few outliers"],
)
def test_unimodal_samples_are_not_bimodal(draw):
    assert bimodality(draws(400, draw)) is None


def test_bimodal_samples_have_a_gap_and_a_share():
    found = bimodality(draws(400, lambda r: r.gauss(1.1 if r.random() < 0.3 else 1.0, 0.005)))
    assert found
    assert found.gap == pytest.approx(0.1, rel=0.05)
    assert found.slow_share == pytest.approx(0.3, abs=0.05)


def test_few_or_equal_samples_are_not_bimodal():
    assert bimodality([1.0, 2.0, 1.0]) is None
    assert bimodality([1.0] * 50) is None
