"""Positions on an axis in percent of its width, so that plots fit any screen."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

# Margin at both ends, in percent, for marks and labels there.
_MARGIN = 3.0
_MAX_TICKS = 5
_MIN_TICKS = 3
_WIDE = 1.5  # a ratio of the ends from which even steps are round numbers
_MANTISSAS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))


@attrs.frozen
class Tick:
    """A labelled place on an axis.

    Attributes:
        at: percent of the axis.
        value: at this position.
    """

    at: float
    value: float


@attrs.frozen
class Scale:
    """An axis.

    Attributes:
        low: the value at its start.
        high: the value at its end; above `low`.
        log: whether the axis is logarithmic.
        start: position of `low` in percent.
        end: position of `high` in percent.
    """

    low: float
    high: float
    log: bool = False
    start: float = _MARGIN
    end: float = 100 - _MARGIN

    @classmethod
    def around(cls, values: Iterable[float], min_ratio: float = 1.5) -> Scale:
        """A logarithmic axis around all values with a margin.

        Args:
            values: above 0; at least one.
            min_ratio: smallest ratio of its ends.
        """
        found = list(values)
        low, high = min(found), max(found)
        room = max(1.05, (min_ratio / (high / low)) ** 0.5)
        return cls(low / room, high * room, log=True)

    def at(self, value: float) -> float:
        """Position of a value in percent; values beyond the ends are at the ends.

        Args:
            value: above 0 on a logarithmic axis.
        """
        low, high, here = map(self._measure, (self.low, self.high, value))
        share = min(1.0, max(0.0, (here - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 3)

    def _measure(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> tuple[Tick, ...]:
        """A few round values within its ends."""
        values = _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)
        return tuple(Tick(self.at(value), value) for value in values)


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / _MAX_TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(decade * n for n in (1, 2, 5, 10) if decade * n >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values, as many per decade as fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for mantissas in _MANTISSAS:
        inside = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(inside) > _MAX_TICKS and found:
            break
        found = inside or found
    if len(found) < _MIN_TICKS and high >= _WIDE * low:
        return _ticks(low, high)
    every = math.ceil(len(found) / _MAX_TICKS) if found else 1
    return found[::every]
