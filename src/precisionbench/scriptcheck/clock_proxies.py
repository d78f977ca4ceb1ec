"""Replaces Python's clocks, so that each reading by the script, and each difference, is recorded.

A reading is a number of the same type as before that also carries its own number in the log.
Readings by libraries stay plain numbers.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from precisionbench.scriptcheck.derived_numbers import difference
from precisionbench.scriptcheck.event_log import EventLog

_SECONDS = ("perf_counter", "time", "monotonic", "process_time", "thread_time")
_NANOSECONDS = tuple(f"{name}_ns" for name in _SECONDS)

Clock = Callable[[], Any]


class RecordedSeconds(float):
    """A recorded reading in seconds, or in another unit once it was multiplied or divided.

    `int()` gives a plain number, whatever `__int__` returns; the log notes it.
    """

    log: EventLog
    number: int
    unit_s = 1.0

    def __sub__(self, other: Any) -> Any:
        value = float.__sub__(self, other)
        if isinstance(other, RecordedSeconds):
            read_s = value * self.unit_s
            self.log.add_difference(other.number, self.number, read_s, sys._getframe(1))
            return difference(self.log, value, read_s, other.number, self.number)
        return value

    def __neg__(self) -> Any:
        return _scaled(self, float.__neg__(self), -1)

    def __add__(self, other: Any) -> Any:
        """As in `seconds = -clock(); work(); seconds += clock()`."""
        value = float.__add__(self, other)
        if isinstance(other, RecordedSeconds) and self.unit_s < 0 < other.unit_s:
            read_s = value * other.unit_s
            self.log.add_difference(self.number, other.number, read_s, sys._getframe(1))
            return difference(self.log, value, read_s, self.number, other.number)
        return value

    def __mul__(self, factor: Any) -> Any:
        return _scaled(self, float.__mul__(self, factor), factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        value = float.__truediv__(self, divisor)
        return value if value is NotImplemented else _scaled(self, value, 1 / divisor)

    def __floordiv__(self, divisor: Any) -> Any:
        value = float.__floordiv__(self, divisor)
        return value if value is NotImplemented else _scaled(self, value, 1 / divisor)

    def __round__(self, digits: Any = None) -> Any:
        return _scaled(self, float.__round__(self, digits), 1)

    def __int__(self) -> int:
        _note_conversion(self)
        return float.__int__(self)

    __trunc__ = __floor__ = __int__

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class RecordedNanoseconds(int):
    """A recorded reading in nanoseconds, or in another unit once it was rounded."""

    log: EventLog
    number: int
    unit_s = 1e-9

    def __sub__(self, other: Any) -> Any:
        value = int.__sub__(self, other)
        if isinstance(other, RecordedNanoseconds):
            read_s = value * self.unit_s
            self.log.add_difference(other.number, self.number, read_s, sys._getframe(1))
            return difference(self.log, value, read_s, other.number, self.number)
        return value

    def __mul__(self, factor: Any) -> Any:
        return _scaled(self, int.__pos__(self) * factor, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        return _scaled(self, int.__pos__(self) / divisor, 1 / divisor)

    def __floordiv__(self, divisor: Any) -> Any:
        return _scaled(self, int.__pos__(self) // divisor, 1 / divisor)

    def __int__(self) -> int:
        _note_conversion(self)
        return int.__int__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int.__int__(self),)


def _note_conversion(reading: Any) -> None:
    """Note that `int()` makes a plain number of a reading; whole seconds are dates or seeds."""
    if reading.unit_s != 1:
        reading.log.add_conversion(reading.number)


def _scaled(reading: Any, value: Any, factor: float) -> Any:
    """The same reading in another unit; a plain number where the factor is none.

    Args:
        reading: that the value comes from.
        value: the result of the operation.
        factor: by which it is larger.
    """
    if type(factor) not in (int, float) or not factor or value is NotImplemented:
        return value
    scaled = (RecordedSeconds if isinstance(value, float) else RecordedNanoseconds)(value)
    scaled.log, scaled.number = reading.log, reading.number
    scaled.unit_s = reading.unit_s / factor
    return scaled


def install_clock_proxies(log: EventLog) -> None:
    """Replace the clocks of the module `time`.

    `timeit`, which holds a clock of its own, is imported anew when the script imports it.

    Args:
        log: records the readings.
    """
    for names, kind, unit_s in (
        (_SECONDS, RecordedSeconds, 1.0),
        (_NANOSECONDS, RecordedNanoseconds, 1e-9),
    ):
        for name in names:
            if hasattr(time, name):  # some systems have no clock for a thread
                clock = recorded(getattr(time, name), f"time.{name}", log, kind, unit_s)
                setattr(time, name, clock)
    sys.modules.pop("timeit", None)


def recorded(
    clock: Clock, label: str, log: EventLog, kind: type[Any] = RecordedSeconds, unit_s: float = 1.0
) -> Clock:
    """A clock that also records readings by the user's code.

    Args:
        clock: returns a number.
        label: its name in the log.
        log: records the readings.
        kind: of the number, `RecordedSeconds` or `RecordedNanoseconds`.
        unit_s: its unit in seconds.
    """

    @functools.wraps(clock)
    def read() -> Any:
        value = clock()
        frame = sys._getframe(1)
        if not log.frames.contains(frame):
            return value
        number = log.add_reading(label, value * unit_s, frame)
        if number is None:
            return value
        reading = kind(value)
        reading.log, reading.number = log, number
        return reading

    return read
