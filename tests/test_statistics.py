import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precisionbench.statistics import Interval, quantile_interval, unpaired_ratio_interval

times = st.floats(1e-6, 10.0)


def test_a_single_round_has_its_range_as_interval():
    assert quantile_interval([[3.0, 1.0, 2.0]]) == Interval(2.0, 1.0, 3.0)


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0], []]])
def test_an_interval_without_rounds_or_samples_is_an_error(rounds):
    with pytest.raises(ValueError, match="at least one round"):
        quantile_interval(rounds)


@given(st.lists(st.lists(times, min_size=1, max_size=5), min_size=1, max_size=40))
def test_the_median_is_inside_its_interval(rounds):
    interval = quantile_interval(rounds)
    assert interval.low <= interval.value <= interval.high


@given(times, times)
def test_the_inverse_of_an_interval_has_its_ends_exchanged(value, factor):
    interval = Interval(value, value * 0.9, value * 1.1).inverse_of(factor)
    assert interval.low <= interval.value <= interval.high
    assert math.isclose(interval.value, factor / value)


def test_the_relative_half_width_is_half_the_width_over_the_value():
    interval = Interval(2.0, 1.0, 3.0)
    assert interval.relative_half_width == 0.5


def test_the_unpaired_ratio_is_as_wide_as_both_intervals_allow():
    ratio = unpaired_ratio_interval(Interval(10.0, 9.0, 11.0), Interval(5.0, 4.0, 6.0))
    assert ratio == Interval(2.0, 9 / 6, 11 / 4)


def test_a_zero_value_has_an_infinite_relative_width():
    assert Interval(0.0, -1.0, 1.0).relative_half_width == math.inf
