import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precisionbench.statistics import Interval, median_interval, unpaired_ratio_interval

times = st.floats(1e-6, 10.0)


@pytest.mark.parametrize(
    ("blocks", "low", "high"),
    # Ranks of the 95 % sign-test interval: Hahn & Meeker, Statistical Intervals, table A.15a-like
    # sums of binomial(n, 1/2).
    [(6, 1, 6), (12, 3, 10), (20, 6, 15), (30, 10, 21)],
)
def test_the_interval_ends_at_the_ranks_of_the_binomial(blocks, low, high):
    interval = median_interval([[float(rank)] for rank in range(1, blocks + 1)])
    assert (interval.low, interval.high) == (low, high)


def test_with_too_few_blocks_the_interval_is_the_range_seen():
    assert median_interval([[3.0], [1.0], [2.0]]) == Interval(2.0, 1.0, 3.0)


def test_a_single_block_is_its_median():
    assert median_interval([[3.0, 1.0, 2.0]]) == Interval(2.0, 2.0, 2.0)


def test_no_block_is_an_error():
    with pytest.raises(ValueError, match="at least one block"):
        median_interval([])


def test_the_interval_holds_the_median_as_often_as_it_says():
    draw = random.Random(0)
    covered = sum(
        interval.low <= 0.0 <= interval.high
        for interval in (
            median_interval([[draw.gauss(0, 1)] for _ in range(12)]) for _ in range(2000)
        )
    )
    assert 0.94 <= covered / 2000 <= 0.98  # 96.1 % by the binomial


@given(st.lists(st.lists(times, min_size=1, max_size=5), min_size=1, max_size=40))
def test_the_median_lies_in_its_interval(blocks):
    interval = median_interval(blocks)
    assert interval.low <= interval.value <= interval.high


@given(times, times)
def test_a_throughput_is_the_inverse_with_its_ends_exchanged(value, factor):
    interval = Interval(value, value * 0.9, value * 1.1).inverse_of(factor)
    assert interval.low <= interval.value <= interval.high
    assert math.isclose(interval.value, factor / value)


def test_a_scaled_interval_keeps_its_relative_width():
    interval = Interval(2.0, 1.0, 3.0)
    assert interval.relative_half_width == 0.5


def test_the_unpaired_ratio_is_as_wide_as_both_intervals_allow():
    ratio = unpaired_ratio_interval(Interval(10.0, 9.0, 11.0), Interval(5.0, 4.0, 6.0))
    assert ratio == Interval(2.0, 9 / 6, 11 / 4)


def test_a_zero_value_has_an_infinite_relative_width():
    assert Interval(0.0, -1.0, 1.0).relative_half_width == math.inf
