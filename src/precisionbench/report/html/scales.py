"""Where a value stands on an axis, in percent of its width, so that plots fit any screen."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

# What is left free at both ends, in percent, for marks and labels that stand at the ends.
_FREE = 3.0
_MOST_TICKS = 5
_MANTISSAS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))


@attrs.frozen
class Tick:
    """A labelled place on an axis.

    Attributes:
        at: percent of the axis.
        value: what stands there.
    """

    at: float
    value: float


@attrs.frozen
class Scale:
    """An axis.

    Attributes:
        low: the value at its start.
        high: the value at its end; above `low`.
        log: whether equal steps are equal ratios.
        start: percent at which `low` stands.
        end: percent at which `high` stands.
    """

    low: float
    high: float
    log: bool = False
    start: float = _FREE
    end: float = 100 - _FREE

    @classmethod
    def around(cls, values: Iterable[float], least_ratio: float = 1.5) -> Scale:
        """A logarithmic axis that holds all values with a little room.

        Args:
            values: above 0; at least one.
            least_ratio: of its ends, however close the values are.
        """
        found = list(values)
        low, high = min(found), max(found)
        room = max(1.05, (least_ratio / (high / low)) ** 0.5)
        return cls(low / room, high * room, log=True)

    def at(self, value: float) -> float:
        """Percent of the axis; values beyond its ends stand at the ends.

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
    rough = (high - low) / _MOST_TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(decade * n for n in (1, 2, 5, 10) if decade * n >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values, with as many in each decade as there is room for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for mantissas in _MANTISSAS:
        inside = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(inside) > _MOST_TICKS and found:
            break
        found = inside or found
    every = math.ceil(len(found) / _MOST_TICKS) if found else 1
    return found[::every]
