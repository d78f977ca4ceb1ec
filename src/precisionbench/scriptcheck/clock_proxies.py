"""The clocks of Python, watched: every reading by the script, and every difference of two.

A reading is a number as before that knows where it was made, so that the difference of two tells
which region was timed. Libraries get the plain number.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from precisionbench.scriptcheck.event_log import Log

_SECONDS = ("perf_counter", "time", "monotonic", "process_time")
_NANOSECONDS = tuple(f"{name}_ns" for name in _SECONDS)


class Moment(float):
    """A reading in seconds."""

    log: Log
    number: int

    def __sub__(self, other: Any) -> float:
        value = float.__sub__(self, other)
        if isinstance(other, Moment):
            self.log.difference(other.number, self.number, value, sys._getframe(1))
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class MomentNs(int):
    """A reading in nanoseconds."""

    log: Log
    number: int

    def __sub__(self, other: Any) -> int:
        value = int.__sub__(self, other)
        if isinstance(other, MomentNs):
            self.log.difference(other.number, self.number, value / 1e9, sys._getframe(1))
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def watch_clocks(log: Log) -> None:
    """Watch the clocks of the module `time`; `timeit` is imported anew, since it holds one.

    Args:
        log: takes down the readings.
    """
    for names, kind, unit in ((_SECONDS, Moment, 1.0), (_NANOSECONDS, MomentNs, 1e-9)):
        for name in names:
            setattr(time, name, _watched(log, name, getattr(time, name), kind, unit))
    sys.modules.pop("timeit", None)


def _watched(
    log: Log, name: str, clock: Callable[[], Any], kind: type[Any], unit: float
) -> Callable[[], Any]:
    label = f"time.{name}"

    @functools.wraps(clock)
    def read() -> Any:
        value = clock()
        frame = sys._getframe(1)
        if not log.frames.is_users(frame):
            return value
        number = log.read(label, value * unit, frame)
        if number is None:
            return value
        moment = kind(value)
        moment.log, moment.number = log, number
        return moment

    return read
