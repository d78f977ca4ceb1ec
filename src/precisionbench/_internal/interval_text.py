"""Intervals as text."""

from __future__ import annotations

import math
from collections.abc import Callable

from precisionbench.statistics import Interval

# An end further away from the value than this factor says only that the interval is so wide.
_FARTHEST = 100.0


def farthest(value: float) -> tuple[float, float]:
    """The lowest and the highest end that is worth showing: powers of ten.

    Args:
        value: of an interval, positive.
    """
    exponent = math.log10(value)
    return 10.0 ** math.floor(exponent) / _FARTHEST, 10.0 ** math.ceil(exponent) * _FARTHEST


def ends(interval: Interval, text: Callable[[float], str] = "{:.3g}".format) -> tuple[str, str]:
    """The two ends of the interval of a ratio as text.

    Args:
        interval: of a positive value.
        text: function from a number to its text.

    Returns:
        The lower and the upper end. An end that is more than a factor of 100 from the value is a
        bound, such as `<0.01` or `>100`.
    """
    lowest, highest = farthest(interval.value)
    low = f"<{lowest:,.10g}" if interval.low < lowest else text(interval.low)
    high = f">{highest:,.10g}" if interval.high > highest else text(interval.high)
    return low, high


def span(interval: Interval, text: Callable[[float], str] = "{:.3g}".format) -> str:
    """The interval of a ratio as text, such as `1.05 to 1.12`.

    Args:
        interval: of a positive value.
        text: function from a number to its text.
    """
    return " to ".join(ends(interval, text))
