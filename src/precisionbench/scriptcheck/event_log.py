"""Records in order what happens while a script runs: readings, and what happens between them.

Its methods run inside the script's own timed regions, so each of them is short. Threads count in
entries of their own, so that none needs to wait for another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from precisionbench.results.dtypes import dtype_name
from precisionbench.scriptcheck.derived_numbers import Batches, ShownRates
from precisionbench.scriptcheck.events import (
    Calls,
    Ending,
    HostWork,
    LoopValue,
    Model,
    Observations,
    Reading,
    Span,
    Timing,
    Wait,
)
from precisionbench.scriptcheck.frames import Line, UserFrames, place_of
from precisionbench.scriptcheck.loop_values import LoopValues

if TYPE_CHECKING:
    from precisionbench.scriptcheck.device import DeviceMonitor

_MOST_READINGS = 10_000  # to write, read and evaluate these takes half a second
_LINES_KEPT = 3  # of the stack of a reading: it may be in a helper
_MOST_SPANS = 64  # between two readings of which the calls are counted at once
_MOST_OVERLAPPING = 1_000  # of one kind and line between two readings: each keeps a marker


class CallKey(NamedTuple):
    """What calls of one group have in common; see `events.Calls`."""

    model: int
    line: Line
    thread: int
    training: bool
    gradients: bool
    autocast: bool
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    error: str = ""


@attrs.define
class _CallTotals:
    """Sums over the calls of one group."""

    count: int = 0
    total_s: float = 0.0
    new_shape_count: int = 0
    new_shape_s: float = 0.0
    compile_count: int = 0
    compile_s: float = 0.0


@attrs.define
class _WorkTotals:
    """Sums over the work of the host of one kind and line.

    Attributes:
        count: number of occurrences.
        total_s: time of those that began while the device had nothing to do.
        overlapping: time of each of the others, with a marker behind what the device had to do.
    """

    count: int = 0
    total_s: float = 0.0
    overlapping: list[tuple[float, Any]] = attrs.field(factory=list)

    def idle_s(self, device: DeviceMonitor | None) -> float:
        """The time in which the device had nothing to do; unknown times count as none."""
        idle_s = self.total_s
        for work_s, marker in self.overlapping:
            busy_s = device.pending_s(marker) if device else None
            idle_s += 0.0 if busy_s is None else max(0.0, work_s - busy_s)
        return idle_s


class _Read(NamedTuple):
    """A reading; see `events.Reading`."""

    clock: str
    lines: list[Line]
    at_s: float
    pending: bool | None
    thread: int
    loop_values: tuple[LoopValue, ...]
    torch_threads: int


class _OpenSpan:
    """The span that events are added to."""

    def __init__(self) -> None:
        self.calls: dict[CallKey, _CallTotals] = {}
        self.waits: dict[tuple[str, Line, bool, int], int] = {}
        self.backward_counts: dict[int, int] = {}  # by thread
        self.overheads_s: dict[int, float] = {}
        self.host_work: dict[tuple[str, Line], _WorkTotals] = {}

    def frozen(self, threads: dict[int, int], device: DeviceMonitor | None) -> Span:
        """The span as frozen data.

        Args:
            threads: numbers of the threads.
            device: of the script.
        """
        return Span(
            tuple(_calls(key, totals, threads) for key, totals in list(self.calls.items())),
            tuple(
                Wait(kind, place_of(line), count, inside, threads[thread])
                for (kind, line, inside, thread), count in list(self.waits.items())
            ),
            sum(self.backward_counts.copy().values()),
            sum(self.overheads_s.copy().values()),
            tuple(
                HostWork(kind, place_of(line), totals.count, totals.idle_s(device))
                for (kind, line), totals in list(self.host_work.items())
            ),
        )


class _Numbers(dict[int, int]):
    """Numbers the identifiers of threads in the order of their first use."""

    def __missing__(self, thread: int) -> int:
        return self.setdefault(thread, len(self))


def _calls(key: CallKey, totals: _CallTotals, threads: dict[int, int]) -> Calls:
    return Calls(
        key.model,
        place_of(key.line),
        totals.count,
        totals.total_s,
        totals.new_shape_count,
        totals.new_shape_s,
        key.training,
        key.gradients,
        key.autocast,
        _dtype_names(key.inputs),
        _dtype_names(key.outputs),
        threads[key.thread],
        totals.compile_count,
        totals.compile_s,
        key.error,
    )


def _dtype_names(dtypes: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(dtype_name, dtypes)))


class EventLog:
    """Records readings of clocks, calls of models, waits and backward passes.

    Attributes:
        frames: which frames are the user's.
        device: queried at each reading; None until torch is imported.
        is_inside_call: whether a call of a model is running.
        batches: reads the script's variables for a batch size.
        shown_rates: rates that the script has shown.
        torch_threads: CPU threads that torch is set to use; 0 until it is imported.
        is_in_host_work: whether work of the host is running that is recorded already.
        observer_error: the last error of the observation itself; empty if there was none.
        on_timing: called with the two readings, the frame and the repetitions, where the script
            computes a difference of two readings between which no model was called.
    """

    def __init__(self) -> None:
        self.frames = UserFrames()
        self.is_inside_call: Callable[[], bool] = lambda: False
        self.is_in_host_work = False
        self.device: DeviceMonitor | None = None
        self.observer_error = ""
        self.batches, self.shown_rates = Batches(), ShownRates()
        self._loop_values = LoopValues(self.frames)
        self.torch_threads: Callable[[], int] = lambda: 0
        self._readings: list[_Read] = []
        self._markers: list[Any] = []
        self._spans = [_OpenSpan()]
        self._timings: list[tuple[int, int, float, Line, int]] = []
        self._converted: set[int] = set()
        self._warm_ups: set[tuple[int, int]] = set()
        self.on_timing: Callable[[int, int, FrameType, int], None] = lambda *_: None
        self._dropped_readings = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        """In a forked process: another thread may have held the lock."""
        self._lock = threading.Lock()

    def add_reading(
        self, clock: str, at_s: float, frame: FrameType, query_device: bool = True
    ) -> int | None:
        """Record a reading of a clock.

        Args:
            clock: its name.
            at_s: the value read.
            frame: of the caller.
            query_device: whether to record the state of the device, too.

        Returns:
            The reading's number; None if there are too many readings.
        """
        if len(self._readings) >= _MOST_READINGS:
            self._dropped_readings += 1
            return None
        device = self.device if query_device else None
        pending = device.pending() if device else None
        marker = device.marker() if device else None
        lines = self.frames.lines(frame, _LINES_KEPT) or [("?", 0)]
        values = self._loop_values.read(frame, _LINES_KEPT)
        reading = _Read(clock, lines, at_s, pending, get_ident(), values, self.torch_threads())
        with self._lock:
            self._markers.append(marker)
            self._readings.append(reading)
            self._spans.append(_OpenSpan())
            return len(self._readings) - 1

    def add_difference(
        self, start: int, end: int, read_s: float, frame: FrameType, repetitions: int = 1
    ) -> None:
        """Record that the script subtracted two readings.

        Args:
            start: number of the first reading.
            end: number of the second.
            read_s: the difference.
            frame: of the caller.
            repetitions: how often a tool repeated the lines between them.
        """
        if start < end and len(self._timings) < _MOST_READINGS:
            self._timings.append((start, end, read_s, self.frames.line(frame), get_ident()))
            if not any(span.calls for span in self._spans[start + 1 : end + 1]):
                self.on_timing(start, end, frame, repetitions)

    def add_conversion(self, number: int) -> None:
        """Record that the script made a plain whole number of a reading, in milliseconds or so.

        Args:
            number: the reading's.
        """
        self._converted.add(number)

    def only_model_called(self, start: int, end: int) -> tuple[int, int] | None:
        """The model that was called between two readings, and how often, by this thread alone.

        Args:
            start: number of the first reading.
            end: number of the second.

        Returns:
            The model's number and the calls; None if none or others were called, too, if calls
            raised, or if many readings are between these two.
        """
        if end - start > _MOST_SPANS:
            return None
        found = [call for span in self._spans[start + 1 : end + 1] for call in span.calls.items()]
        models, thread = {key.model for key, _ in found}, get_ident()
        if len(models) != 1 or any(key.error or key.thread != thread for key, _ in found):
            return None
        count = sum(totals.count for _, totals in found)
        return (models.pop(), count) if count else None

    def timings_since(self, position: int) -> list[tuple[int, int]]:
        """The readings of each difference that this thread has computed since.

        Args:
            position: number of differences until then, `timing_count`.
        """
        thread = get_ident()
        return [timing[:2] for timing in self._timings[position:] if timing[-1] == thread]

    @property
    def timing_count(self) -> int:
        """Number of differences so far."""
        return len(self._timings)

    def mark_warm_ups(self, timings: Iterable[tuple[int, int]]) -> None:
        """Record that these differences belong to a warm-up.

        Args:
            timings: the two readings of each.
        """
        self._warm_ups.update(timings)

    def lines_of_reading(self, number: int) -> list[Line]:
        """The line of a reading, and those that led to it, the innermost first.

        Args:
            number: the reading's.
        """
        return self._readings[number].lines

    def add_operations(self, end: int, key: CallKey, count: int) -> None:
        """Record operations before a reading, which were found once it was read.

        Args:
            end: number of the reading.
            key: of the group.
            count: how often they ran; 0 if unknown.
        """
        self._spans[end].calls.setdefault(key, _CallTotals()).count += count

    def add_call(
        self, key: CallKey, call_s: float, new_shape: bool, compiled: bool = False
    ) -> None:
        """Record a call of a model.

        Args:
            key: of its group.
            call_s: its time on the host.
            new_shape: whether its input shape is new to the model.
            compiled: whether `torch.compile` compiled a graph in it.
        """
        calls = self._spans[-1].calls
        totals = calls.get(key)
        if totals is None:
            totals = calls[key] = _CallTotals()
        totals.count += 1
        totals.total_s += call_s
        if new_shape:
            totals.new_shape_count += 1
            totals.new_shape_s += call_s
        if compiled:
            totals.compile_count += 1
            totals.compile_s += call_s

    def add_wait(self, kind: str, frame: FrameType, inside: bool) -> None:
        """Record a copy between host and device, or a wait for the device.

        Args:
            kind: such as `.item()`.
            frame: of the caller.
            inside: whether it happens inside a call of a model.
        """
        waits, key = self._spans[-1].waits, (kind, self.frames.line(frame), inside, get_ident())
        waits[key] = waits.get(key, 0) + 1

    def add_backward(self) -> None:
        """Record a backward pass."""
        counts, thread = self._spans[-1].backward_counts, get_ident()
        counts[thread] = counts.get(thread, 0) + 1

    def may_add_host_work(self) -> bool:
        """Whether work of the host that begins now is part of a timing, and of no model."""
        return (
            not self.is_in_host_work
            and not self.is_inside_call()
            and threading.current_thread() is threading.main_thread()
        )

    def pending_marker(self) -> Any:
        """A marker behind the work that the device has; None if it has none."""
        return self.device.marker() if self.device and self.device.pending() else None

    def add_host_work(self, kind: str, frame: FrameType, work_s: float, marker: Any) -> None:
        """Record work of the host outside of models.

        Args:
            kind: such as `torch.tensor()`.
            frame: of the caller.
            work_s: its time.
            marker: behind the work that the device had when it began.
        """
        key = kind, self.frames.line(frame)
        totals = self._spans[-1].host_work.setdefault(key, _WorkTotals())
        totals.count += 1
        if marker is None:
            totals.total_s += work_s
        elif len(totals.overlapping) < _MOST_OVERLAPPING:
            totals.overlapping.append((work_s, marker))

    def add_overhead(self, overhead_s: float) -> None:
        """Record time that the observation itself took.

        Args:
            overhead_s: seconds.
        """
        overheads_s, thread = self._spans[-1].overheads_s, get_ident()
        overheads_s[thread] = overheads_s.get(thread, 0.0) + overhead_s

    def frozen(
        self, ending: Ending, models: tuple[Model, ...] = (), torch: str = "", gpu: str = ""
    ) -> Observations:
        """Everything recorded, as frozen data.

        Args:
            ending: how the script ended.
            models: the models called.
            torch: torch's version.
            gpu: the GPU's name.
        """
        threads = _Numbers()
        return Observations(
            models,
            tuple(self._reading(n, threads) for n in range(len(self._readings))),
            tuple(span.frozen(threads, self.device) for span in list(self._spans)),
            tuple(self._timing(*timing) for timing in list(self._timings)),
            ending,
            torch,
            gpu,
            self._dropped_readings,
            self.observer_error,
            shown_rates=self.shown_rates.frozen(),
        )

    def _reading(self, number: int, threads: dict[int, int]) -> Reading:
        read, device = self._readings[number], self.device
        place, *callers = map(place_of, read.lines)
        return Reading(
            read.clock,
            place,
            read.at_s,
            read.pending,
            threads[read.thread],
            None if device is None else device.pending_s(self._markers[number]),
            tuple(callers),
            read.loop_values,
            read.torch_threads,
            number in self._converted,
        )

    def _timing(self, start: int, end: int, read_s: float, line: Line, _: int) -> Timing:
        device_s = None
        if self.device is not None:
            device_s = self.device.elapsed_s(self._markers[start], self._markers[end])
        is_result = (start, end) not in self._warm_ups
        return Timing(start, end, read_s, device_s, place_of(line), is_result)
