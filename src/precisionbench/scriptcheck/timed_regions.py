"""Finds the timed regions of a script in its clock readings: pure functions of observations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby, pairwise

import attrs

from precisionbench.scriptcheck.events import Calls, Observations, Place, Span, Timing, Wait

_TIMERS = ("perf_counter", "monotonic", "process_time", "thread_time")


@attrs.frozen
class TimedRegion:
    """The calls of models between two readings whose difference is a result.

    Attributes:
        clock: such as `time.perf_counter`.
        start: the line of the first reading.
        end: the line of the second.
        read_s: the difference.
        device_s: time the device needed; None if unknown.
        pending: whether the device had work pending at the second reading.
        spans: what happened between the two readings.
        after: what happened from the second reading to the next.
    """

    clock: str
    start: Place
    end: Place
    read_s: float
    device_s: float | None
    pending: bool
    spans: tuple[Span, ...]
    after: Span

    @property
    def calls(self) -> tuple[Calls, ...]:
        """Groups of calls, of all models."""
        return tuple(calls for span in self.spans for calls in span.calls)

    @property
    def models(self) -> set[int]:
        """Numbers of the models called."""
        return {calls.model for calls in self.calls}

    @property
    def count(self) -> int:
        """Number of calls."""
        return sum(calls.count for calls in self.calls)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Copies and waits."""
        return tuple(wait for span in self.spans for wait in span.waits)

    @property
    def trains(self) -> bool:
        """Whether a backward pass runs in the region or right after it."""
        return any(span.backward_count for span in (*self.spans, self.after))


def find_regions(
    observations: Observations, compared_lines: frozenset[int], script: str
) -> tuple[TimedRegion, ...]:
    """The timed regions of a script, in order.

    A difference that is only compared, such as the condition of a loop, is not a region, nor is one
    that contains other regions. Neighbouring readings that were never subtracted from one another
    (the script may subtract them with numpy) bound a region, too. Calls of
    another thread belong to a region unless that thread reads clocks itself.

    Args:
        observations: of the run.
        compared_lines: lines that only compare a difference.
        script: the file of these lines.
    """

    def is_compared(timing: Timing) -> bool:
        return timing.place.line in compared_lines and timing.place.file == script

    differences = [t for t in observations.timings if t.is_result and not is_compared(t)]
    timings = {(t.start, t.end): t for t in (*differences, *_unsubtracted(observations))}
    timed = [timing for timing in timings.values() if _has_work(observations, timing)]
    by_thread = groupby(sorted(timed, key=_thread(observations)), key=_thread(observations))
    innermost = [timing for _, group in by_thread for timing in _innermost(list(group))]
    return tuple(_region(observations, t) for t in sorted(innermost, key=lambda t: t.end))


def _has_work(observations: Observations, timing: Timing) -> bool:
    """Whether something was called in a timing, or the device worked on something at its end."""
    has_calls = any(span.calls for span in _within(observations, timing))
    return has_calls or bool(observations.readings[timing.end].pending)


def _thread(observations: Observations) -> Callable[[Timing], int]:
    """The thread that read the clock last in a timing."""
    return lambda timing: observations.readings[timing.end].thread


def _unsubtracted(observations: Observations) -> Iterator[Timing]:
    """Neighbouring readings of a timer that are part of no difference and inside none."""
    for thread in {reading.thread for reading in observations.readings}:
        yield from _unsubtracted_in(observations, thread)


def _unsubtracted_in(observations: Observations, thread: int) -> Iterator[Timing]:
    """Such readings by one thread."""
    timings = [t for t in observations.timings if _thread(observations)(t) == thread]
    depth_changes = Counter(timing.start for timing in timings)
    depth_changes.subtract(timing.end for timing in timings)
    used = {number for timing in timings for number in (timing.start, timing.end)}
    readings = observations.readings
    depths = list(accumulate(depth_changes[number] for number in range(len(readings))))
    own = (number for number, reading in enumerate(readings) if reading.thread == thread)
    for start, end in pairwise(own):
        first, last = readings[start], readings[end]
        is_timer = last.clock.partition(".")[2].startswith(_TIMERS)
        is_free = not depths[start] and not used & {start, end}
        if is_timer and first.clock == last.clock and is_free:
            yield Timing(start, end, last.at_s - first.at_s, None, last.place)


def _innermost(timings: list[Timing]) -> Iterator[Timing]:
    """Timings that contain no other one, in the order of their ends."""
    latest_start = -1
    for timing in sorted(timings, key=lambda t: (t.end, -t.start)):
        if timing.start > latest_start:
            latest_start = timing.start
            yield timing


def _within(observations: Observations, timing: Timing) -> tuple[Span, ...]:
    """What happened in a timing, without the work of threads that time themselves."""
    thread = observations.readings[timing.end].thread
    others = {reading.thread for reading in observations.readings} - {thread}
    spans = observations.spans[timing.start + 1 : timing.end + 1]
    return tuple(_without(others, span) for span in spans) if others else spans


def _without(threads: set[int], span: Span) -> Span:
    return attrs.evolve(
        span,
        calls=tuple(calls for calls in span.calls if calls.thread not in threads),
        waits=tuple(wait for wait in span.waits if wait.thread not in threads),
    )


def _region(observations: Observations, timing: Timing) -> TimedRegion:
    start, end = observations.readings[timing.start], observations.readings[timing.end]
    return TimedRegion(
        end.clock,
        start.place,
        end.place,
        timing.read_s,
        timing.device_s,
        bool(end.pending),
        _within(observations, timing),
        observations.spans[timing.end + 1],
    )


def by_place(timed: Iterable[TimedRegion]) -> list[list[TimedRegion]]:
    """Group regions by their two lines.

    Args:
        timed: regions of one script.
    """
    groups: dict[tuple[Place, Place], list[TimedRegion]] = {}
    for region in timed:
        groups.setdefault((region.start, region.end), []).append(region)
    return list(groups.values())
