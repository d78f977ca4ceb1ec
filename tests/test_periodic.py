"""Which series of calls are periodic."""

from __future__ import annotations

import random

import pytest

from precisionbench.statistics.periodic import periodic


def times(count: int, period: int, first: int = 0) -> list[float]:
    draw = random.Random(0)
    return [draw.uniform(0.97, 1.03) * (4.0 if i % period == first else 1.0) for i in range(count)]


@pytest.mark.parametrize("period", [2, 3, 10, 40])
def test_the_period_is_found(period):
    found = periodic([times(200, period, first=1)])
    assert found.period == period
    assert found.ratio == pytest.approx(4, rel=0.1)


def test_gaps_between_series_do_not_count():
    assert periodic([times(23, 7, first) for first in (5, 0, 3)]).period == 7


def test_calls_that_were_not_timed_keep_their_place():
    seen = [time if i % 6 else None for i, time in enumerate(times(200, 7, first=1))]
    assert periodic([seen]).period == 7
    squeezed = periodic([[time for time in seen if time is not None]])
    assert squeezed.period == 6
    assert squeezed.regularity < 1


@pytest.mark.parametrize("seed", range(20))
def test_random_slow_calls_are_not_periodic(seed):
    draw = random.Random(seed)
    assert periodic([[3.0 if draw.random() < 0.15 else 1.0 for _ in range(200)]]) is None


@pytest.mark.parametrize("series", [[], [[1.0]], [[1.0, 3.0, 1.0]], [times(60, 20)]])
def test_few_calls_show_no_period(series):
    assert periodic(series) is None
