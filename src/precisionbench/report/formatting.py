"""Numbers as text: with units, and only as many digits as the interval supports."""

from __future__ import annotations

import math

from precisionbench.statistics import Interval

_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_MAX_DIGITS = 4
_MIN_DIGITS = 2
_MAX_PERCENT = 100  # a wider interval carries no information


def significant(value: float, digits: int) -> str:
    """A number with a number of significant digits, thousands separators and no exponent.

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
    scale, unit = _unit(interval.value)
    return f"{significant(interval.value / scale, supported_digits(interval))} {unit}"


def time_text(seconds: float, digits: int = 2) -> str:
    """A time without an interval, such as `4.1 µs`.

    Args:
        seconds: above 0.
        digits: number of significant digits.
    """
    scale, unit = _unit(seconds)
    return f"{significant(seconds / scale, digits)} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    return next((pair for pair in _TIME_UNITS if seconds >= pair[0]), _TIME_UNITS[-1])


_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def scaled(value: float, unit: str, digits: int = 3) -> str:
    """A rate with a prefix, such as `52.1 TFLOP/s`.

    Args:
        value: in the unit.
        unit: such as `FLOP/s`.
        digits: number of significant digits.
    """
    scale, prefix = next((pair for pair in _PREFIXES if value >= pair[0]), (1.0, ""))
    return f"{significant(value / scale, digits)} {prefix}{unit}"


def half_width(interval: Interval) -> str:
    """The interval's half-width in percent, such as `±0.3%`, rounded up."""
    percent = interval.relative_half_width * 100
    if percent > _MAX_PERCENT:
        return f"±>{_MAX_PERCENT}%"
    digits = 1 if percent < 10 else 0
    return f"±{math.ceil(percent * 10**digits) / 10**digits:.{digits}f}%"


def number(interval: Interval) -> str:
    """A figure without a unit, such as `3,175`."""
    return significant(interval.value, supported_digits(interval))


def rate(value: float) -> str:
    """Items per second with three significant digits or all before the decimal point.

    Args:
        value: 0 or more.
    """
    return significant(value, max(3, len(str(int(value)))))


def scientific(value: float) -> str:
    """A small error, such as `1.2e-03`; an exact zero is `0`."""
    return f"{value:.1e}" if value else "0"
