"""Intervals as text."""

from __future__ import annotations

from collections.abc import Callable

from precisionbench.statistics import Interval

# An end further away from the value than this factor says only that the interval is so wide.
FARTHEST = 100.0


def ends(interval: Interval, text: Callable[[float], str] = "{:.3g}".format) -> tuple[str, str]:
    """The two ends of the interval of a ratio as text.

    Args:
        interval: of a positive value.
        text: function from a number to its text.

    Returns:
        The lower and the upper end. An end that is more than a factor of 100 from the value is a
        bound, such as `<0.01` or `>100`.
    """
    lowest, highest = interval.value / FARTHEST, interval.value * FARTHEST
    low = f"<{text(lowest)}" if interval.low < lowest else text(interval.low)
    high = f">{text(highest)}" if interval.high > highest else text(interval.high)
    return low, high


def span(interval: Interval, text: Callable[[float], str] = "{:.3g}".format) -> str:
    """The interval of a ratio as text, such as `1.05 to 1.12`.

    Args:
        interval: of a positive value.
        text: function from a number to its text.
    """
    return " to ".join(ends(interval, text))
