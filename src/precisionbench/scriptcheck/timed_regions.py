"""From readings to what a script timed: pure functions over what was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

import attrs

from precisionbench.scriptcheck.events import Calls, Observations, Place, Segment, Timing, Wait

_CLOCKS_FOR_TIMES = ("perf_counter", "monotonic", "process_time")


@attrs.frozen
class Region:
    """A timed region that called models.

    Attributes:
        start: where the clock was read first.
        end: where it was read last.
        read_s: what the script read.
        device_s: what the device took; None where not known.
        pending: whether the device was still at work at the last reading.
        segments: what happened within.
        after: what happened next.
    """

    start: Place
    end: Place
    read_s: float
    device_s: float | None
    pending: bool
    segments: tuple[Segment, ...]
    after: Segment

    @property
    def calls(self) -> tuple[Calls, ...]:
        """Of all models."""
        return tuple(calls for segment in self.segments for calls in segment.calls)

    @property
    def models(self) -> set[int]:
        """Numbers of the models that were called."""
        return {calls.model for calls in self.calls}

    @property
    def count(self) -> int:
        """How many calls there were."""
        return sum(calls.count for calls in self.calls)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Copies and waits."""
        return tuple(wait for segment in self.segments for wait in segment.waits)

    @property
    def trains(self) -> bool:
        """Whether gradients are computed in it, or right after it."""
        return any(segment.backwards for segment in (*self.segments, self.after))


def regions(seen: Observations, conditions: frozenset[int], script: str) -> tuple[Region, ...]:
    """What the script timed, in its order.

    A difference that is only the condition of a loop, and one that has others with calls inside,
    is no result. Readings that were never subtracted from one another (they may have gone to
    numpy) are taken for the bounds of what lies between them.

    Args:
        seen: what was observed.
        conditions: lines on which a difference is only compared.
        script: the file that these lines are of.
    """

    def is_condition(timing: Timing) -> bool:
        return timing.place.line in conditions and timing.place.file == script

    results = [timing for timing in seen.timings if not is_condition(timing)]
    found = {(t.start, t.end): t for t in (*results, *_unsubtracted(seen))}
    timed = [t for t in found.values() if any(s.calls for s in _within(seen, t))]
    return tuple(_region(seen, timing) for timing in _innermost(timed))


def _unsubtracted(seen: Observations) -> Iterator[Timing]:
    """Neighbouring readings of a clock for times, where no difference was taken around them."""
    steps: Counter[int] = Counter()
    for timing in seen.timings:
        steps[timing.start] += 1
        steps[timing.end] -= 1
    used = {number for timing in seen.timings for number in (timing.start, timing.end)}
    around = list(accumulate(steps[number] for number in range(len(seen.readings))))
    for start, (first, last) in enumerate(pairwise(seen.readings)):
        for_times = last.clock.partition(".")[2].startswith(_CLOCKS_FOR_TIMES)
        free = not around[start] and not used & {start, start + 1}
        if for_times and first.clock == last.clock and free:
            yield Timing(start, start + 1, last.at_s - first.at_s, None, last.place)


def _innermost(timings: list[Timing]) -> Iterator[Timing]:
    """Those that hold no other one, in the order of their ends."""
    latest_start = -1
    for timing in sorted(timings, key=lambda t: (t.end, -t.start)):
        if timing.start > latest_start:
            latest_start = timing.start
            yield timing


def _within(seen: Observations, timing: Timing) -> tuple[Segment, ...]:
    return seen.segments[timing.start + 1 : timing.end + 1]


def _region(seen: Observations, timing: Timing) -> Region:
    start, end = seen.readings[timing.start], seen.readings[timing.end]
    return Region(
        start.place,
        end.place,
        timing.read_s,
        timing.device_s,
        bool(end.pending),
        _within(seen, timing),
        seen.segments[timing.end + 1],
    )


def by_place(found: Iterable[Region]) -> list[list[Region]]:
    """Regions between the same two lines, together."""
    groups: dict[tuple[Place, Place], list[Region]] = {}
    for region in found:
        groups.setdefault((region.start, region.end), []).append(region)
    return list(groups.values())
