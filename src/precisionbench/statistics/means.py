"""Intervals of a mean by bootstrap, and of a value that is still to come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from precisionbench.statistics.intervals import Interval

_RESAMPLES = 2000
_SEED = 0  # the same values give the same interval
# A value of zero has no logarithm: it counts as this share of the largest one.
_LEAST_SHARE = 1e-3


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values, with the percentile interval of the bootstrap, widened.

    The percentile interval is too narrow for few values: with 2 it holds the mean in 50 of 100
    cases. Its ends are moved away from the mean by sqrt(n / (n - 1)), as the spread of n values
    is too small by that, and by the quantile of Student's t over that of the normal distribution.

    Args:
        values: at least one, such as a metric of each batch. One value alone has no interval: its
            ends are infinite.
        confidence: probability that the interval holds the mean of all values that could be drawn.

    Returns:
        The mean with its interval (B. Efron and R. Tibshirani, An Introduction to the Bootstrap,
        1993, chapter 13; both factors: T. Hesterberg, What Teachers Should Know About the
        Bootstrap, 2015, doi:10.1080/00031305.2015.1089789, whose expanded percentile interval
        takes other quantiles by them; with few values there are none, so the distance is scaled).
    """
    import numpy as np
    from scipy.special import ndtri, stdtrit

    count, centre = len(values), mean(values)
    if count < 2:
        return Interval(centre, -math.inf, math.inf)
    drawn = np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, count))
    means = np.asarray(values, dtype=float)[drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    if min(values) == max(values):  # else rounding would be widened
        low = high = centre
    wider = math.sqrt(count / (count - 1)) * stdtrit(count - 1, 1 - tail) / ndtri(1 - tail)
    below, above = (float(wider * reach) for reach in (centre - low, high - centre))
    return Interval(centre, centre - below, centre + above)


def next_value(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The largest of some positive values, with an interval for one more value of the same kind.

    The logarithms are taken to be normally distributed: the interval is their prediction interval,
    by Student's t.

    Args:
        values: at least one, none negative. One value alone gives no interval: the upper end is
            infinite.
        confidence: probability that another value is below the upper end, and as well that it is
            above the lower one.
    """
    from scipy.special import stdtrit

    largest = max(values)
    if not largest:
        return Interval(0.0, 0.0, 0.0)
    if len(values) < 2:
        return Interval(largest, 0.0, math.inf)
    logs = [math.log(max(value, _LEAST_SHARE * largest)) for value in values]
    reach = float(stdtrit(len(logs) - 1, confidence)) * stdev(logs) * math.sqrt(1 + 1 / len(logs))
    low, high = math.exp(mean(logs) - reach), math.exp(mean(logs) + reach)
    return Interval(largest, min(low, *values), max(high, largest))
