"""Numbers as a person reads them: units, and no more digits than the interval supports."""

from __future__ import annotations

import math

from precisionbench.statistics import Interval

_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_MAX_DIGITS = 4
_MIN_DIGITS = 2


def significant(value: float, digits: int) -> str:
    """A number with so many significant digits, with thousands separated and no exponent.

    Args:
        value: any finite number.
        digits: 1 or more.
    """
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def supported_digits(interval: Interval) -> int:
    """How many digits of the value the interval supports: between 2 and 4."""
    width = interval.relative_half_width
    if not 0 < width < 1:
        return _MAX_DIGITS if width == 0 else _MIN_DIGITS
    return min(_MAX_DIGITS, max(_MIN_DIGITS, math.ceil(-math.log10(width)) + 1))


def duration(interval: Interval) -> str:
    """A time with its unit, such as `10.09 ms`.

    Args:
        interval: in seconds.
    """
    scale, unit = next((pair for pair in _TIME_UNITS if interval.value >= pair[0]), _TIME_UNITS[-1])
    return f"{significant(interval.value / scale, supported_digits(interval))} {unit}"


def half_width(interval: Interval) -> str:
    """The interval's half-width in percent, such as `±0.3%`, rounded up."""
    percent = interval.relative_half_width * 100
    digits = 1 if percent < 10 else 0
    return f"±{math.ceil(percent * 10**digits) / 10**digits:.{digits}f}%"


def number(interval: Interval) -> str:
    """A figure without a unit, such as `3,175`."""
    return significant(interval.value, supported_digits(interval))


def scientific(value: float) -> str:
    """A small error, such as `1.2e-03`; an exact zero is `0`."""
    return f"{value:.1e}" if value else "0"
