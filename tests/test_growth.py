"""Work grows as its input does."""

from __future__ import annotations

import random

import attrs
import pytest

import precisionbench as pb
from pages import large
from precisionbench.results import Block, ComparisonData, Preparation
from precisionbench.statistics.series import Steadiness, steadiness
from work import TWICE, lines_run


def measured(rows: int, sessions: int, rounds: int) -> ComparisonData:
    """A comparison of two replicas of each row, without profiles."""
    draw = random.Random(0)
    data = large(rows=rows, layers=0)
    places = [(session, replica) for session in range(sessions) for replica in range(2)]
    preparations = tuple(Preparation(1.0, 0.1, 30, replica, session) for session, replica in places)

    def blocks() -> tuple[Block, ...]:
        return tuple(
            Block(number, 0, replica, (draw.uniform(0.99, 1.01),), session)
            for session, replica in places
            for number in range(rounds)
        )

    results = tuple(
        attrs.evolve(
            row,
            evidence=None,
            measurement=attrs.evolve(row.measurement, blocks=blocks(), preparations=preparations),
        )
        for row in data.results
    )
    return attrs.evolve(data, results=results, failures=())


@pytest.mark.uncounted
@pytest.mark.parametrize(
    ("small", "large_"),
    [((2, 6, 40), (2, 12, 40)), ((2, 1, 240), (2, 1, 480)), ((12, 1, 12), (24, 1, 12))],
    ids=["sessions", "rounds", "rows"],
)
def test_the_table_takes_twice_the_work_for_twice_as_many(small, large_):
    first, twice = (pb.Comparison(measured(*size)) for size in (small, large_))
    str(pb.Comparison(measured(2, 1, 12)))  # what is imported on the way is not counted
    assert lines_run(lambda: str(twice)) < TWICE * lines_run(lambda: str(first))


def test_long_series_are_judged_in_as_much_work_as_short_ones():
    draw = random.Random(0)
    long = [draw.gauss(1, 0.001) for _ in range(6000)]
    short, longer = (lines_run(lambda n=n: steadiness(long[:n])) for n in (3000, 6000))
    assert longer < TWICE * short


@pytest.mark.parametrize("count", [100, 5000])
def test_a_long_series_is_judged_like_a_short_one(count):
    draw = random.Random(0)
    noise = [draw.gauss(0, 0.001) for _ in range(count)]
    step = [0.05 * (place > count // 2) for place in range(count)]
    assert steadiness([1 + n for n in noise]) is Steadiness.FLAT
    assert steadiness([1 + n + s for n, s in zip(noise, step, strict=True)]) is Steadiness.SLOWDOWN
    assert steadiness([1 + n - s for n, s in zip(noise, step, strict=True)]) is Steadiness.WARMUP
