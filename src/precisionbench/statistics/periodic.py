"""Periodic calls: every Nth call of a series takes longer than the others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median, quantiles

import attrs

from precisionbench.display import Shown

# A call counts as slow from this multiple of the usual time on.
_SLOW = 1.25
_MIN_SLOW_CALLS = 5
# The share of gaps between slow calls that must be the period: random slow calls are not regular.
_MIN_REGULAR = 0.8
_MIN_PERIOD = 2
# One call in N is slow; random bursts are more or fewer.
_MOST_IRREGULAR = 0.34


@attrs.frozen(repr=False)
class Periodic(Shown):
    """Every Nth call is slow.

    Attributes:
        period: N.
        ratio: time of a slow call over that of the others.
        share: share of the total time that the slow calls add.
        regularity: share of the distances between slow calls that are N.
    """

    period: int
    ratio: float
    share: float
    regularity: float = 1.0


def periodic(series: Sequence[Sequence[float | None]]) -> Periodic | None:
    """Find whether every Nth call is slow.

    Args:
        series: times of consecutive calls in seconds, in the order taken, with None for calls that
            were not timed; between two series any number of calls can be missing.

    Returns:
        The period; None if slow calls are fewer than five or not at regular distances.
    """
    times = [time for one in series for time in one if time is not None]
    limit = _SLOW * usual_time(times)
    slow = [
        [i for i, time in enumerate(one) if time is not None and time > limit] for one in series
    ]
    count = sum(map(len, slow))
    gaps = [after - before for one in slow for before, after in itertools.pairwise(one)]
    if count < _MIN_SLOW_CALLS or len(gaps) < _MIN_SLOW_CALLS - 1:
        return None
    period = round(median(gaps))
    regular = sum(gap == period for gap in gaps) / len(gaps)
    frequency = count * period / len(times)
    if period < _MIN_PERIOD or regular < _MIN_REGULAR or abs(frequency - 1) > _MOST_IRREGULAR:
        return None
    of_slow = median(time for time in times if time > limit)
    return Periodic(period, of_slow / usual_time(times), slow_share(times), regular)


def usual_time(times: Sequence[float]) -> float:
    """The time of a call that is not slow: the lower quartile, which every second call can raise.

    Args:
        times: of calls, in seconds.
    """
    return quantiles(times, n=4)[0] if len(times) > 1 else sum(times)


def slow_share(times: Sequence[float]) -> float:
    """The share of the total time by which slow calls exceed the usual time.

    Args:
        times: of calls, in seconds.
    """
    usual = usual_time(times)
    total = sum(times)
    return sum(time - usual for time in times if time > _SLOW * usual) / total if total else 0.0
