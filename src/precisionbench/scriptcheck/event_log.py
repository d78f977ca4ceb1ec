"""What happens while a script runs, noted down in order: readings, and what lies between them.

It is written to inside the script's own timed regions, so everything here is short.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import attrs

from precisionbench.scriptcheck.events import (
    Calls,
    Ending,
    Model,
    Observations,
    Place,
    Reading,
    Segment,
    Timing,
    Wait,
)

if TYPE_CHECKING:
    from precisionbench.scriptcheck.device import DeviceAccess

_READINGS_KEPT = 20_000
_NOT_THE_USERS = ("site-packages", "dist-packages")
_TIMEIT = "<timeit-src>"  # the code that timeit makes of what it is given


class Frames:
    """Tells the script's own code from that of libraries."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {_TIMEIT: True}
        self._homes = (sysconfig.get_paths()["stdlib"], str(Path(__file__).parent.parent))

    def is_users(self, frame: FrameType) -> bool:
        """Whether this frame runs the script or a module of its author."""
        name = frame.f_code.co_filename
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._judge(name)
        return known

    def _judge(self, name: str) -> bool:
        if name.startswith("<") or any(part in name for part in _NOT_THE_USERS):
            return False
        return not str(Path(name).absolute()).startswith(self._homes)

    def place(self, frame: FrameType | None) -> tuple[str, int]:
        """The nearest line of the user's that led to a frame."""
        while frame is not None:
            if self.is_users(frame) and frame.f_code.co_filename != _TIMEIT:
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        return "?", 0


def place_of(where: tuple[str, int]) -> Place:
    """A place as a reader would open it."""
    file, line = where
    path = Path(file)
    here = Path.cwd()
    inside = path.is_absolute() and path.is_relative_to(here)
    return Place(str(path.relative_to(here)) if inside else file, line)


@attrs.define
class _Group:
    """Calls of the same kind between two readings."""

    count: int = 0
    total_s: float = 0.0
    fresh: int = 0
    fresh_s: float = 0.0


class _Open:
    """A segment that is still written to."""

    def __init__(self) -> None:
        self.calls: dict[tuple[Any, ...], _Group] = {}
        self.waits: dict[tuple[str, tuple[str, int], bool], int] = {}
        self.backwards = 0
        self.own_s = 0.0

    def closed(self) -> Segment:
        """As frozen data."""
        return Segment(
            tuple(_calls(key, group) for key, group in list(self.calls.items())),
            tuple(
                Wait(kind, place_of(place), count, inside)
                for (kind, place, inside), count in list(self.waits.items())
            ),
            self.backwards,
            self.own_s,
        )


def _calls(key: tuple[Any, ...], group: _Group) -> Calls:
    model, place, training, gradients, autocast, inputs, outputs = key
    return Calls(
        model,
        place_of(place),
        group.count,
        group.total_s,
        group.fresh,
        group.fresh_s,
        training,
        gradients,
        autocast,
        _names(inputs),
        _names(outputs),
    )


def dtype_name(dtype: Any) -> str:
    """Such as `float32`."""
    return str(dtype).removeprefix("torch.")


def _names(dtypes: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(dtype_name, dtypes)))


class Log:
    """Takes down what the observer sees.

    Attributes:
        frames: whose code a frame is.
        device: to be asked at each reading; None until torch is imported.
        fault: the last error of the observation itself; empty where there was none.
    """

    def __init__(self) -> None:
        self.frames = Frames()
        self.device: DeviceAccess | None = None
        self.fault = ""
        self._readings: list[tuple[str, tuple[str, int], float, bool | None]] = []
        self._marks: list[Any] = []
        self._segments = [_Open()]
        self._timings: list[tuple[int, int, float, tuple[str, int]]] = []
        self._left_out = 0

    def read(self, clock: str, value: float, frame: FrameType, ask: bool = True) -> int | None:
        """A clock was read; gives the reading's number, None where there are too many."""
        if len(self._readings) >= _READINGS_KEPT:
            self._left_out += 1
            return None
        device = self.device if ask else None
        pending = device.pending() if device else None
        self._marks.append(device.mark() if device else None)
        self._readings.append((clock, self.frames.place(frame), value, pending))
        self._segments.append(_Open())
        return len(self._readings) - 1

    def difference(self, start: int, end: int, read_s: float, frame: FrameType) -> None:
        """The difference of two readings was taken."""
        if start < end and len(self._timings) < _READINGS_KEPT:
            self._timings.append((start, end, read_s, self.frames.place(frame)))

    def called(self, key: tuple[Any, ...], took_s: float, fresh: bool) -> None:
        """A model was called."""
        calls = self._segments[-1].calls
        group = calls.get(key)
        if group is None:
            group = calls[key] = _Group()
        group.count += 1
        group.total_s += took_s
        if fresh:
            group.fresh += 1
            group.fresh_s += took_s

    def waited(self, kind: str, frame: FrameType, inside: bool) -> None:
        """Something copied between host and device, or waited."""
        waits, key = self._segments[-1].waits, (kind, self.frames.place(frame), inside)
        waits[key] = waits.get(key, 0) + 1

    def went_backward(self) -> None:
        """Gradients were computed."""
        self._segments[-1].backwards += 1

    def spent(self, own_s: float) -> None:
        """The observation itself took this long."""
        self._segments[-1].own_s += own_s

    def frozen(
        self, ending: Ending, models: tuple[Model, ...] = (), torch: str = "", gpu: str = ""
    ) -> Observations:
        """All that was noted down.

        Args:
            ending: how the script ended.
            models: that were called.
            torch: its version.
            gpu: its name.
        """
        return Observations(
            models,
            tuple(
                Reading(clock, place_of(place), value, pending)
                for clock, place, value, pending in list(self._readings)
            ),
            tuple(segment.closed() for segment in list(self._segments)),
            tuple(self._timing(*timing) for timing in list(self._timings)),
            ending,
            torch,
            gpu,
            self._left_out,
            self.fault,
        )

    def _timing(self, start: int, end: int, read_s: float, place: tuple[str, int]) -> Timing:
        device_s = None
        if self.device is not None:
            device_s = self.device.seconds_between(self._marks[start], self._marks[end])
        return Timing(start, end, read_s, device_s, place_of(place))
