"""Times any callable the same way: mark, call, mark; one synchronization at the end of a block.

The clock is the one thing that differs between devices, and the one thing that tests replace.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any, Protocol

import attrs
import torch

from precisionbench._internal.garbage_collection import garbage_collection_off
from precisionbench.errors import MeasurementError

Mark = Callable[[], object]
Call = Callable[[], object]
_Marks = tuple[Mark, Mark]  # before and after a sample

# A pair of events reads 2.7 us more than the work between them takes in a train of calls (on an
# H100, docs/hardware.md). A sample of at least this length keeps that below 0.6 % of it.
_MIN_EVENT_SAMPLE_S = 500e-6
# A host-clock sample is at least this many times what reading the clock costs.
_HOST_OVERHEADS_PER_SAMPLE = 100
_CUDA_EVENT_RESOLUTION_S = 0.5e-6


class Clock(Protocol):
    """A device's clock, as the Timer uses it.

    Attributes:
        name: `cuda_events` or `host`, as recorded in results.
        resolution_s: its smallest step.
        min_sample_s: the shortest sample that it times well.
    """

    name: str
    resolution_s: float
    min_sample_s: float

    def marks(self, count: int) -> tuple[Sequence[Mark], Callable[[], list[float]]]:
        """Make marks ahead of time.

        Args:
            count: how many.

        Returns:
            The marks, to be called in order, and a function that then waits for the device once
            and returns the seconds between the first and second, the third and fourth, and so on.
        """
        ...

    def wait(self) -> None:
        """Wait until the device has done all work that is enqueued."""
        ...

    def active(self) -> contextlib.AbstractContextManager[None]:
        """The context of prepared calls: on a GPU, its device and a stream of our own."""
        ...


class CudaEventClock:
    """CUDA events on a stream of our own (TensorRT synchronizes more on the default stream).

    Args:
        device: a CUDA device.
    """

    name = "cuda_events"
    resolution_s = _CUDA_EVENT_RESOLUTION_S
    min_sample_s = _MIN_EVENT_SAMPLE_S

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self._events: list[torch.cuda.Event] = []

    def marks(self, count: int) -> tuple[Sequence[Mark], Callable[[], list[float]]]:
        """Events that were created and recorded once before: PyTorch creates them lazily."""
        while len(self._events) < count:
            event = torch.cuda.Event(enable_timing=True)
            event.record(self.stream)
            self._events.append(event)
        events = self._events[:count]
        self.wait()
        return [partial(event.record, self.stream) for event in events], partial(self._read, events)

    def _read(self, events: list[torch.cuda.Event]) -> list[float]:
        self.wait()
        pairs = zip(events[::2], events[1::2], strict=True)
        return [start.elapsed_time(end) * 1e-3 for start, end in pairs]

    def wait(self) -> None:
        """Wait for our stream."""
        self.stream.synchronize()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Our device and stream; the stream first waits for work on the current one."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            yield
        self.wait()


class HostClock:
    """`time.perf_counter_ns`, with the device drained before each reading.

    Args:
        device: any device that torch can synchronise; on a CPU there is nothing to wait for.
    """

    name = "host"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._synchronize: Callable[[], object] = _synchronizer(device)
        readings = [self._read_ns() for _ in range(101)]
        steps = [after - before for before, after in itertools.pairwise(readings)]
        self.resolution_s = max(
            median(steps) * 1e-9, time.get_clock_info("perf_counter").resolution
        )
        self.min_sample_s = _HOST_OVERHEADS_PER_SAMPLE * self.resolution_s

    def _read_ns(self) -> int:
        self._synchronize()
        return time.perf_counter_ns()

    def marks(self, count: int) -> tuple[Sequence[Mark], Callable[[], list[float]]]:
        """Marks that each append one reading to a list."""
        readings: list[int] = []
        append, read = readings.append, self._read_ns

        def mark() -> None:
            append(read())

        def durations() -> list[float]:
            pairs = zip(readings[::2], readings[1::2], strict=True)
            return [(end - start) * 1e-9 for start, end in pairs]

        return [mark] * count, durations

    def wait(self) -> None:
        """Wait for the device."""
        self._synchronize()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """No context is needed."""
        yield


def _synchronizer(device: torch.device) -> Callable[[], object]:
    module: Any = getattr(torch, device.type, None)
    return getattr(module, "synchronize", lambda: None)


def clock_for(device: torch.device) -> Clock:
    """CUDA events on an NVIDIA or AMD GPU, the host's clock elsewhere.

    Args:
        device: where the calls run.
    """
    return CudaEventClock(device) if device.type == "cuda" else HostClock(device)


@attrs.frozen
class Timer:
    """Runs blocks of calls back to back and times each sample.

    Attributes:
        clock: the device's clock.
    """

    clock: Clock

    @classmethod
    def on(cls, device: str | torch.device) -> Timer:
        """A timer with the clock of a device.

        Args:
            device: where the calls run, such as `"cuda"`.

        Returns:
            The timer; run its calls within `timer.clock.active()`.
        """
        return cls(clock_for(torch.device(device)))

    def calls_per_sample(self, call_s: float) -> int:
        """How many calls one sample must span to be long enough for the clock.

        Args:
            call_s: about how long one call takes, in seconds.

        Returns:
            The number of calls, 1 or more.
        """
        return max(1, math.ceil(self.clock.min_sample_s / max(call_s, self.clock.resolution_s)))

    def once(self, call: Call) -> tuple[object, float]:
        """Time one call, with the device idle before and after.

        Args:
            call: what to run.

        Returns:
            What the call returned, and the host's time in seconds.
        """
        self.clock.wait()
        start_ns = time.perf_counter_ns()
        result = call()
        self.clock.wait()
        return result, (time.perf_counter_ns() - start_ns) * 1e-9

    def block(
        self,
        call: Call,
        samples: int,
        calls_per_sample: int = 1,
        settle_calls: int = 0,
        flush: Call | None = None,
        limit_s: float = math.inf,
    ) -> tuple[float, ...]:
        """Time one block.

        Between the first mark and the last only marks and calls run: events exist already,
        garbage collection is off, and the one synchronization comes after.

        Args:
            call: what to time.
            samples: number of samples, 1 or more.
            calls_per_sample: calls that each sample spans.
            settle_calls: untimed calls just before, so that the device's queue is as full at the
                first sample as at the last.
            flush: called before each sample and not timed: it enqueues work that empties the
                cache.
            limit_s: the host's clock takes no further sample once this many seconds have passed;
                events are all enqueued by then.

        Returns:
            Seconds per call, one figure for each sample.

        Raises:
            MeasurementError: the clock did not move forward.
        """
        marks, read = self.clock.marks(2 * samples)
        starts = marks[::2] if flush is None else [_both(flush, mark) for mark in marks[::2]]
        with garbage_collection_off():
            for _ in range(settle_calls):
                call()
            pairs = zip(starts, marks[1::2], strict=True)
            _run_samples(call, calls_per_sample, self._limited(pairs, limit_s))
            durations_s = read()
        if min(durations_s) <= 0:
            raise MeasurementError(
                f"the clock {self.clock.name!r} read {min(durations_s)} s for a sample of "
                f"{calls_per_sample} calls",
                "measure again; if it happens again, the call does no work on this device",
            )
        return tuple(duration_s / calls_per_sample for duration_s in durations_s)

    def _limited(self, pairs: Iterable[_Marks], limit_s: float) -> Iterable[_Marks]:
        is_limited = math.isfinite(limit_s) and isinstance(self.clock, HostClock)
        return _until(limit_s, pairs) if is_limited else pairs


def _until(limit_s: float, pairs: Iterable[_Marks]) -> Iterator[_Marks]:
    """The marks of the first sample, and of further ones until the time is over."""
    end_s = time.perf_counter() + limit_s
    for pair in pairs:
        yield pair
        if time.perf_counter() > end_s:
            return


def _run_samples(call: Call, calls: int, pairs: Iterable[_Marks]) -> None:
    """Run a number of calls between each start mark and its end mark, and nothing else."""
    inner = range(calls)
    for start, end in pairs:
        start()
        for _ in inner:
            call()
        end()


def _both(first: Call, second: Call) -> Call:
    def call() -> None:
        first()
        second()

    return call
