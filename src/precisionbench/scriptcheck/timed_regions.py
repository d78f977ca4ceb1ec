"""Finds the timed regions of a script in its clock readings: pure functions of observations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby, pairwise

import attrs

from precisionbench.scriptcheck.events import (
    Calls,
    HostWork,
    LoopValue,
    Observations,
    Place,
    Reading,
    Span,
    Timing,
    Wait,
)

_SPANS_TO_BACKWARD = 32  # after a forward pass, and no more: each timing looks for its own
_TIMERS = ("perf_counter", "monotonic", "process_time", "thread_time")
_CPU_CLOCKS = ("time.process_time", "time.thread_time")


@attrs.frozen
class SourceLines:
    """What lines of the source do with readings.

    Attributes:
        compared: lines that only compare a reading, or a difference of readings.
        subtracted: pairs of lines whose values are subtracted, that of the first value first.
    """

    compared: frozenset[Place] = frozenset()
    subtracted: frozenset[tuple[Place, Place]] = frozenset()


NO_LINES = SourceLines()


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
        after: what happened from the second reading to the next; or what happened later, between
            two readings, with the backward pass of these calls.
        pending_s: how long the device still needed at the second reading; None if unknown.
        earlier_s: how long it still needed at the first one, for work that is not timed; None if
            unknown.
        on_device: whether a device with work of its own was used.
        callers: the lines that led to the two readings.
        first_reading: number of the first reading.
        loop_values: variables of the loops that both readings are in, unchanged between them.
        torch_threads: CPU threads that torch was set to use; 0 if unknown.
    """

    clock: str
    start: Place
    end: Place
    read_s: float
    device_s: float | None
    pending: bool
    spans: tuple[Span, ...]
    after: Span
    pending_s: float | None = None
    earlier_s: float | None = None
    on_device: bool = False
    callers: frozenset[Place] = frozenset()
    first_reading: int = 0
    loop_values: tuple[LoopValue, ...] = ()
    torch_threads: int = 0

    @property
    def calls(self) -> tuple[Calls, ...]:
        """Groups of calls, of all models, without those that raised."""
        return tuple(calls for span in self.spans for calls in span.calls if not calls.error)

    @property
    def failures(self) -> tuple[Calls, ...]:
        """Groups of calls that raised."""
        return tuple(calls for span in self.spans for calls in span.calls if calls.error)

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
    def host_work(self) -> tuple[HostWork, ...]:
        """Conversions, copies, data loading and pauses."""
        return tuple(work for span in self.spans for work in span.host_work)

    @property
    def script_s(self) -> float:
        """The time read, less what the observation took."""
        return max(0.0, self.read_s - sum(span.overhead_s for span in self.spans))

    @property
    def trains(self) -> bool:
        """Whether a backward pass runs in the region or right after it."""
        return any(span.backward_count for span in (*self.spans, self.after))


def is_cpu_time(clock: str) -> bool:
    """Whether a clock counts the time of the CPU, without what is waited for.

    Args:
        clock: such as `time.process_time`.
    """
    return clock.startswith(_CPU_CLOCKS)


def find_regions(
    observations: Observations, lines: SourceLines = NO_LINES
) -> tuple[TimedRegion, ...]:
    """The timed regions of a script, in order.

    A difference that is only compared, such as the condition of a loop, is not a region, nor is one
    that contains other regions, unless it times the same calls by the other kind of clock: elapsed
    time or CPU time. Where one line subtracts the same reading again and again, such
    as that of the time elapsed so far, the last difference is the result.
    Neighbouring readings that were never subtracted from one another (the script may subtract them
    with numpy) bound a region, too. Calls of another thread belong to a region unless that thread
    reads clocks itself.

    Args:
        observations: of the run.
        lines: what the source does with readings.
    """
    differences = [t for t in observations.timings if t.is_result and t.place not in lines.compared]
    apart = (t for t in _unsubtracted(observations, lines) if t.place not in lines.compared)
    timings = {(t.start, t.end): t for t in (*_without_laps(differences), *apart)}
    timed = [timing for timing in timings.values() if _has_work(observations, timing)]
    by_thread = groupby(sorted(timed, key=_thread(observations)), key=_thread(observations))
    found = [one for _, group in by_thread for one in _innermost_of(observations, list(group))]
    return tuple(_region(observations, t) for t in sorted(found, key=lambda t: t.end))


def find_empty_regions(
    observations: Observations, lines: SourceLines = NO_LINES
) -> tuple[TimedRegion, ...]:
    """Differences that the script computed of readings between which nothing was called.

    Args:
        observations: of the run.
        lines: what the source does with readings.
    """
    differences = [t for t in observations.timings if t.is_result and t.place not in lines.compared]
    innermost = _innermost(list(_without_laps(differences)))
    return tuple(_region(observations, t) for t in innermost if _is_empty(observations, t))


def _is_empty(observations: Observations, timing: Timing) -> bool:
    spans = observations.spans[timing.start + 1 : timing.end + 1]
    works = any(span.calls or span.backward_count for span in spans)
    return not works and observations.readings[timing.end].pending is None


def _has_work(observations: Observations, timing: Timing) -> bool:
    """Whether something was called in a timing, or the device worked on something at its end."""
    has_calls = any(span.calls for span in _within(observations, timing))
    return has_calls or _is_pending(observations, timing.end)


def _is_pending(observations: Observations, number: int) -> bool:
    """Whether the device had work of the script pending at a reading.

    The observation sets a marker on the device at each reading. On a GPU that other processes use,
    too, it can be pending still at the next reading, although the script has launched nothing.
    """
    reading, before = observations.readings[number], observations.spans[number]
    launched = bool(before.calls or before.backward_count)
    return bool(reading.pending) and (launched or reading.pending_s != 0)


def _thread(observations: Observations) -> Callable[[Timing], int]:
    """The thread that read the clock last in a timing."""
    return lambda timing: observations.readings[timing.end].thread


def _without_laps(differences: list[Timing]) -> Iterator[Timing]:
    """Differences without those that a later one from the same reading replaces."""
    lines = Counter((timing.start, timing.place) for timing in differences)
    repeated = {start for (start, _), count in lines.items() if count > 1}
    last = {timing.start: timing for timing in sorted(differences, key=lambda t: t.end)}
    return (t for t in differences if t.start not in repeated or t is last[t.start])


def _unsubtracted(observations: Observations, lines: SourceLines) -> Iterator[Timing]:
    """Neighbouring readings of a timer that are part of no difference and inside none."""
    for thread in {reading.thread for reading in observations.readings}:
        yield from _unsubtracted_in(observations, thread, lines)


def _unsubtracted_in(
    observations: Observations, thread: int, lines: SourceLines
) -> Iterator[Timing]:
    """Such readings by one thread.

    Lines whose readings are subtracted elsewhere need no such pair, nor do two starts of timings,
    of which the first was left out. Where a pair of lines comes in both orders, the first is the
    timing and the other what happens between two timings.
    """
    readings = observations.readings
    places = {(readings[t.start].place, readings[t.end].place) for t in observations.timings}
    starts = {start for start, _ in places}
    paired: set[tuple[Place, Place]] = set()
    for start, end in _free_pairs(observations, thread):
        first, last = readings[start], readings[end]
        pair = first.place, last.place
        is_new = pair not in places and (last.place, first.place) not in paired
        is_new = is_new and not starts.issuperset(pair)
        if is_new and first.clock == last.clock and _may_be_timed(first, last, lines):
            if first.place != last.place:
                paired.add(pair)
            yield Timing(start, end, last.at_s - first.at_s, None, last.place)


def _may_be_timed(first: Reading, last: Reading, lines: SourceLines) -> bool:
    """Whether two readings of one clock may be a timing.

    Those that became plain whole numbers, as milliseconds do, are where the source subtracts what
    the lines that led to them got.
    """
    if not (first.is_converted and last.is_converted and lines.subtracted):
        return last.clock.partition(".")[2].startswith(_TIMERS)
    starts, ends = (first.place, *first.callers), (last.place, *last.callers)
    return any((start, end) in lines.subtracted for start in starts for end in ends)


def _free_pairs(observations: Observations, thread: int) -> Iterator[tuple[int, int]]:
    """Neighbouring readings by one thread that are part of no difference and inside none."""
    timings = [t for t in observations.timings if _thread(observations)(t) == thread]
    depth_changes = Counter(timing.start for timing in timings)
    depth_changes.subtract(timing.end for timing in timings)
    used = {number for timing in timings for number in (timing.start, timing.end)}
    count = len(observations.readings)
    depths = list(accumulate(depth_changes[number] for number in range(count)))
    own = (number for number in range(count) if observations.readings[number].thread == thread)
    for start, end in pairwise(own):
        if not depths[start] and not used & {start, end}:
            yield start, end


def _innermost(timings: list[Timing]) -> Iterator[Timing]:
    """Timings that contain no other one, in the order of their ends."""
    latest_start = -1
    for timing in sorted(timings, key=lambda t: (t.end, -t.start)):
        if timing.start > latest_start:
            latest_start = timing.start
            yield timing


def _innermost_of(observations: Observations, timings: list[Timing]) -> Iterator[Timing]:
    """Innermost timings, and those around one that time the same calls by the other clock."""
    innermost = list(_innermost(timings))
    yield from innermost
    clocks = [is_cpu_time(observations.readings[timing.end].clock) for timing in timings]
    if all(clocks) or not any(clocks):
        return
    inside = {(timing.start, timing.end) for timing in innermost}
    timed = {
        (is_cpu, _calling_spans(observations, timing))
        for timing, is_cpu in zip(timings, clocks, strict=True)
        if (timing.start, timing.end) in inside
    }
    for timing, is_cpu in zip(timings, clocks, strict=True):
        is_around = (timing.start, timing.end) not in inside
        if is_around and (not is_cpu, _calling_spans(observations, timing)) in timed:
            yield timing


def _calling_spans(observations: Observations, timing: Timing) -> tuple[int, ...]:
    numbers = range(timing.start + 1, timing.end + 1)
    return tuple(number for number in numbers if observations.spans[number].calls)


def _within(observations: Observations, timing: Timing) -> tuple[Span, ...]:
    """What happened in a timing, without the work of threads that time themselves."""
    thread = observations.readings[timing.end].thread
    spans = observations.spans[timing.start + 1 : timing.end + 1]
    threads = {calls.thread for span in spans for calls in span.calls}
    threads |= {wait.thread for span in spans for wait in span.waits}
    if threads <= {thread}:
        return spans
    others = {reading.thread for reading in observations.readings} - {thread}
    if not threads & others:
        return spans
    return tuple(_without(others, span) for span in spans)


def _without(threads: set[int], span: Span) -> Span:
    return attrs.evolve(
        span,
        calls=tuple(calls for calls in span.calls if calls.thread not in threads),
        waits=tuple(wait for wait in span.waits if wait.thread not in threads),
    )


def _region(observations: Observations, timing: Timing) -> TimedRegion:
    start, end = observations.readings[timing.start], observations.readings[timing.end]
    within, is_pending = _within(observations, timing), _is_pending(observations, timing.end)
    return TimedRegion(
        end.clock,
        start.place,
        end.place,
        timing.read_s,
        timing.device_s,
        is_pending,
        within,
        _after(observations, timing, within),
        end.pending_s if is_pending else None,
        start.pending_s if start.pending else None,
        end.pending is not None or end.clock == "torch.cuda.Event",
        frozenset((start.place, end.place, *start.callers, *end.callers)),
        timing.start,
        tuple(value for value in end.loop_values if value in start.loop_values),
        end.torch_threads,
    )


def _after(observations: Observations, timing: Timing, within: tuple[Span, ...]) -> Span:
    """What follows a timing.

    A script may time the forward pass, the loss and the backward pass apart: a backward pass
    belongs to the last calls before it, unless another line has called the same model since.
    """
    following = observations.spans[timing.end + 1]
    own = {(calls.model, calls.place) for span in within for calls in span.calls}
    models = {model for model, _ in own}
    for span in observations.spans[timing.end + 1 : timing.end + 1 + _SPANS_TO_BACKWARD]:
        called = {(calls.model, calls.place) for calls in span.calls if calls.model in models}
        if not called <= own:
            break
        if span.backward_count:
            return span
    return following


def by_models(timed: Iterable[TimedRegion]) -> list[list[TimedRegion]]:
    """Group regions by their two lines and by what was called.

    Args:
        timed: regions of one script.
    """
    groups: dict[object, list[TimedRegion]] = {}
    for region in timed:
        groups.setdefault((region.start, region.end, frozenset(region.models)), []).append(region)
    return list(groups.values())


def by_place(timed: Iterable[TimedRegion]) -> list[list[TimedRegion]]:
    """Group regions by their two lines.

    Args:
        timed: regions of one script.
    """
    groups: dict[tuple[Place, Place], list[TimedRegion]] = {}
    for region in timed:
        groups.setdefault((region.start, region.end), []).append(region)
    return list(groups.values())
