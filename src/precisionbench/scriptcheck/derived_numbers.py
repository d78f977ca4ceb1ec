"""Numbers that a script computes from a timing, up to the items per second that it shows.

A difference of two readings is a number of the same type as before that also carries what was
timed. Sums of such numbers, and multiples of them by plain numbers, carry it on; a plain number
divided by one is a rate. Rates that the script shows are compared with what was timed at the end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from precisionbench.scriptcheck.events import ShownRate
from precisionbench.scriptcheck.frames import TIMEIT, Line, local_values, place_of

if TYPE_CHECKING:
    from precisionbench.scriptcheck.event_log import EventLog

_BATCH = re.compile(r"(\w*_)?(batch(_?size)?|bs|bsz|minibatch)(_\w+)?", re.IGNORECASE)
_ARGUMENTS = re.compile(
    r"self|(\w*_)?(args?|opts?|options|cfg|config|conf|params|hp)", re.IGNORECASE
)
_BATCH_PART = re.compile(r"idx|index|num_batch|n_batch|batches|step|iter", re.IGNORECASE)
_MOST_RATES = 1_000


class Timed(NamedTuple):
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
        return with_timed(_plain(self) + _plain(other), _joined(self.timed, other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return with_timed(_plain(self) * _plain(other), _scaled(self.timed, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return with_timed(_plain(self) / _plain(other), _scaled(self.timed, other))

    def __rtruediv__(self, other: Any) -> Any:
        timed = _rate(self.timed, sys._getframe(1)) if type(other) in (int, float) else None
        return with_timed(other / _plain(self), timed)

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
        return self.plain, (_plain(self),)


class _DerivedFloat(_Derived, float):
    """A number of any unit."""


class _DerivedInt(_Derived, int):
    """A whole number, such as nanoseconds."""

    plain = int


def _plain(number: Any) -> Any:
    """The number itself, so that operators with any other type do what they always do."""
    return number.plain.__pos__(number) if isinstance(number, _Derived) else number


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
        per_call = _plain(number) * timed.read_s / timed.calls
        timed.log.shown_rates.add(timed, per_call, timed.log.frames.line(frame))


class Batches:
    """Reads variables of the script whose names say that they hold a batch size."""

    def __init__(self) -> None:
        self._names: dict[CodeType, tuple[list[str], list[str]]] = {}

    def read(self, frame: FrameType) -> frozenset[int]:
        """Their values where a frame is, as far as they are whole numbers.

        Args:
            frame: of the script.
        """
        code, world = frame.f_code, frame.f_globals
        known = self._names.get(code)
        if known is None:
            local_names = (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
            both = (list(filter(_may_hold_batch, names)) for names in (local_names, world))
            known = self._names[code] = (next(both), next(both))
        named = list(local_values(frame, known[0]).items()) if known[0] else []
        named += [(name, world.get(name)) for name in known[1]]
        return frozenset(size for name, value in named for size in _sizes(name, value))


def _may_hold_batch(name: str) -> bool:
    return _is_batch(name) or bool(_ARGUMENTS.fullmatch(name))


def _is_batch(name: str) -> bool:
    return bool(_BATCH.fullmatch(name)) and not _BATCH_PART.search(name)


def _sizes(name: str, value: Any) -> Iterator[int]:
    """The batch sizes that a variable holds: itself, or attributes of a script's arguments."""
    if _is_batch(name) and type(value) is int:
        yield value
    elif _ARGUMENTS.fullmatch(name):
        inner = getattr(value, "__dict__", {})
        yield from (v for n, v in inner.items() if type(v) is int and _is_batch(n))


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
