"""Numbers that a script computes from a timing, up to the items per second that it shows.

A difference of two readings is a number of the same type as before that also carries what was
timed. Sums of such numbers, and multiples of them by plain numbers, carry it on; a plain number
divided by one is a rate. Rates that the script shows are compared with what was timed at the end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import attrs

from precisionbench.scriptcheck.events import ShownRate
from precisionbench.scriptcheck.frames import TIMEIT, Line, place_of

if TYPE_CHECKING:
    from precisionbench.scriptcheck.event_log import EventLog

_BATCH = re.compile(r"(\w*_)?(batch(_?size)?|bs|bsz|minibatch)(_\w+)?", re.IGNORECASE)
_BATCH_PART = re.compile(r"idx|index|num_batch|n_batch|batches|step|iter", re.IGNORECASE)
_MOST_RATES = 1_000


@attrs.frozen
class Timed:
    """What a number was computed from.

    Attributes:
        log: records rates.
        read_s: seconds in all timings that went into it.
        calls: calls in them.
        model: number of the only model that was called.
        formed: the line that made a rate of it; None for a time.
        batches: values of the variables for a batch size on that line.
    """

    log: EventLog
    read_s: float
    calls: int
    model: int
    formed: Line | None = None
    batches: frozenset[int] = frozenset()


class _Derived:
    """What numbers that carry a `Timed` do, whatever their type."""

    timed: Timed | None = None
    plain: Any = float

    def __add__(self, other: Any) -> Any:
        value = self.plain.__add__(self, other)
        return value if value is NotImplemented else with_timed(value, _joined(self.timed, other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        value = self.plain.__mul__(self, other)
        return value if value is NotImplemented else with_timed(value, _scaled(self.timed, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        value = self.plain.__truediv__(self, other)
        return value if value is NotImplemented else with_timed(value, _scaled(self.timed, other))

    def __rtruediv__(self, other: Any) -> Any:
        value = self.plain.__rtruediv__(self, other)
        if value is NotImplemented or type(other) not in (int, float):
            return value
        return with_timed(value, _rate(self.timed, sys._getframe(1)))

    def __round__(self, *digits: Any) -> Any:
        return with_timed(self.plain.__round__(self, *digits), self.timed)

    def __str__(self) -> str:
        _show(self, sys._getframe(1))
        return str(self.plain.__repr__(self))

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        _show(self, sys._getframe(1))
        return str(self.plain.__format__(self, spec))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.plain, (self.plain(self),)


class _DerivedFloat(_Derived, float):
    """A number of any unit."""


class _DerivedInt(_Derived, int):
    """A whole number, such as nanoseconds."""

    plain = int


def with_timed(value: Any, timed: Timed | None) -> Any:
    """The same number, which also carries what was timed; plain where that is unknown.

    Args:
        value: a plain number.
        timed: what it was computed from.
    """
    if timed is None or type(value) not in (int, float):
        return value
    derived = (_DerivedFloat if type(value) is float else _DerivedInt)(value)
    derived.timed = timed
    return derived


def difference(log: EventLog, value: Any, read_s: float, start: int, end: int) -> Any:
    """The difference of two readings, which carries the calls between them.

    Args:
        log: of the readings.
        value: the difference, in the script's unit.
        read_s: the same in seconds.
        start: number of the first reading.
        end: number of the second.
    """
    found = log.only_model_called(start, end) if start < end else None
    frame = sys._getframe(2)
    if found is None or frame.f_code.co_filename == TIMEIT or not log.frames.contains(frame):
        return value
    return with_timed(value, Timed(log, read_s, found[1], found[0]))


def _joined(timed: Timed | None, other: Any) -> Timed | None:
    """What a sum was computed from."""
    if type(other) in (int, float):
        return timed if not other else None
    more = getattr(other, "timed", None)
    if timed is None or more is None or timed.formed or more.formed or timed.model != more.model:
        return None
    return Timed(timed.log, timed.read_s + more.read_s, timed.calls + more.calls, timed.model)


def _scaled(timed: Timed | None, factor: Any) -> Timed | None:
    return timed if type(factor) in (int, float) else None


def _rate(timed: Timed | None, frame: FrameType) -> Timed | None:
    """What a rate was computed from; None for what is divided by a rate."""
    if timed is None or timed.formed is not None:
        return None
    log = timed.log
    return Timed(
        log, timed.read_s, timed.calls, timed.model, log.frames.line(frame), log.batches.read(frame)
    )


def _show(number: Any, frame: FrameType) -> None:
    """Record a rate that the script shows, through `print` or `logging` as well."""
    timed = number.timed
    if timed is not None and timed.formed is not None and timed.log.frames.call_tools(frame):
        per_call = number.plain(number) * timed.read_s / timed.calls
        timed.log.shown_rates.add(timed, per_call, timed.log.frames.line(frame))


class Batches:
    """Reads variables of the script whose names say that they hold a batch size."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], tuple[CodeType, list[tuple[str, str]]]] = {}

    def read(self, frame: FrameType) -> frozenset[int]:
        """Their values where a frame is, as far as they are whole numbers.

        Args:
            frame: of the script.
        """
        key = id(frame.f_code), frame.f_lasti
        local, world = frame.f_locals, frame.f_globals
        known = self._names.get(key)
        if known is None:  # keeps the code, so that its id stays its own
            names = list(dict.fromkeys((*_batch_names(local), *_batch_names(world))))
            known = self._names[key] = frame.f_code, names
        values = (_value(owner, name, local, world) for owner, name in known[1])
        return frozenset(value for value in values if type(value) is int)


def _batch_names(scope: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of batch sizes: variables, or attributes of the arguments that a script was given."""
    for name, value in list(scope.items()):
        if type(value) is int and _is_batch(name):
            yield "", name
        elif type(value).__name__ == "Namespace":
            yield from ((name, inner) for inner in vars(value) if _is_batch(inner))


def _is_batch(name: str) -> bool:
    return bool(_BATCH.fullmatch(name)) and not _BATCH_PART.search(name)


def _value(owner: str, name: str, local: Mapping[str, Any], world: Mapping[str, Any]) -> Any:
    if owner:
        return getattr(local.get(owner, world.get(owner)), name, None)
    return local.get(name, world.get(name))


class ShownRates:
    """The rates that a script has shown, each kind of them once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Line, Line | None, int, float], ShownRate] = {}

    def add(self, timed: Timed, per_call: float, line: Line) -> None:
        """Record that a rate is shown.

        Args:
            timed: what it was computed from.
            per_call: items for each call that it stands for.
            line: that shows it.
        """
        key = line, timed.formed, timed.model, round(per_call, 3)
        if key not in self._found and len(self._found) < _MOST_RATES:
            formed = place_of(timed.formed or line)
            batches = tuple(sorted(timed.batches))
            self._found[key] = ShownRate(
                place_of(line), formed, timed.model, timed.calls, per_call, batches
            )

    def frozen(self) -> tuple[ShownRate, ...]:
        """All of them, in the order of the script."""
        return tuple(self._found.values())
