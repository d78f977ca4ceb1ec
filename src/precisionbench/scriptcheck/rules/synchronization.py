"""The rules on host and device: work that is pending at a reading, and copies between the two."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import LOADING, Wait
from precisionbench.scriptcheck.rules.base import (
    STATIC_ONLY,
    Rule,
    RuleContext,
    RuleMatch,
    shown_time,
)
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_place
from precisionbench.scriptcheck.violations import Location

_FETCHES = frozenset({".item()", ".tolist()", ".numpy()", ".cpu()"})
_EARLIER_SHARE = 0.02  # of a timing; from here on, earlier work in it is a problem


def missing_synchronize(context: RuleContext) -> RuleMatch | None:
    """Detect a clock that was read, or started, while the device still had work to do."""
    early = [region for region in context.regions if region.pending]
    if early:
        locations = tuple(_early_location(group) for group in by_place(early))
        return RuleMatch(tuple(_early_numbers(early)), locations)
    return _started_early(context) or _unsynchronized_in_source(context)


def _early_numbers(early: list[TimedRegion]) -> Iterator[Number]:
    yield Number("timings read too early", len(early), "count")
    measured = [region for region in early if region.device_s]
    if measured:
        worst = min(measured, key=lambda r: r.read_s / (r.device_s or 1))
        yield Number("read", worst.read_s, "s")
        yield Number("device time", worst.device_s or 0, "s")
        yield Number("read / device time", worst.read_s / (worst.device_s or 1), "share")
    pending = [region.pending_s for region in early if region.pending_s is not None]
    if pending:
        yield Number("work still pending", max(pending), "s")


def _early_location(group: list[TimedRegion]) -> Location:
    measured = [region for region in group if region.device_s]
    error = ""
    if measured:
        read_s, device_s = (sum(getattr(r, n) for r in measured) for n in ("read_s", "device_s"))
        error = f"; {shown_time(read_s)} read, the device needed {shown_time(device_s)}"
        error += f" ({_percent(read_s, device_s)})"
    pending_s = max((region.pending_s or 0.0 for region in group), default=0.0)
    amount = f"{shown_time(pending_s)} of " if pending_s else ""
    return Location(
        group[0].end,
        f"{_times(group)}, the clock started at line {group[0].start.line} was read with "
        f"{amount}work pending{error}",
    )


def _started_early(context: RuleContext) -> RuleMatch | None:
    """Detect timings that include earlier work, which was pending when the clock was started."""
    late = [r for r in context.regions if (r.earlier_s or 0.0) > _EARLIER_SHARE * r.read_s]
    if not late:
        return None
    worst = max(late, key=lambda region: region.earlier_s or 0.0)
    locations = tuple(
        Location(
            group[0].start,
            f"{_times(group)}, the clock was started with "
            f"{shown_time(max(r.earlier_s or 0.0 for r in group))} of earlier work pending, which "
            f"the timing read at line {group[0].end.line} includes",
        )
        for group in by_place(late)
    )
    numbers = (
        Number("earlier work pending", worst.earlier_s or 0.0, "s"),
        Number("read", worst.read_s, "s"),
    )
    return RuleMatch(numbers, locations)


def _percent(read_s: float, device_s: float) -> str:
    share = abs(1 - read_s / device_s)
    return f"{share:.1%} too {'little' if read_s < device_s else 'much'}"


def _times(group: list[TimedRegion]) -> str:
    return "once" if len(group) == 1 else f"{len(group)} times"


def _unsynchronized_in_source(context: RuleContext) -> RuleMatch | None:
    """Detect timings whose GPU path has no wait, in a run that used no GPU.

    Tensors that the run read in a timing show a wait that the source does not.
    """
    fetched = {r.end for r in context.regions if any(w.kind in _FETCHES for w in r.host_work)}
    timings = [t for t in context.static.unsynchronized if t.end not in fetched]
    if context.gpu_observed or not context.static.uses_cuda or not timings:
        return None
    locations = tuple(
        Location(
            timing.end,
            f"the clock started at line {timing.start.line} is read after CUDA work without "
            "torch.cuda.synchronize()",
        )
        for timing in timings
    )
    return RuleMatch((Number("timed regions", len(timings), "count"),), locations, STATIC_ONLY)


def host_copies(context: RuleContext) -> RuleMatch | None:
    """Detect copies between host and device, or waits for it, about once per timed call.

    A single fetch at the end is not counted: some scripts synchronize with it. Uploads of data that
    is loaded in the same timing are not counted either: the script times the whole pipeline.
    """
    counts: dict[tuple[str, str], int] = {}
    locations: dict[Location, None] = {}
    for region in context.regions:
        for wait in region.waits:
            if wait.count < _least_count(wait, region) or (wait.uploads and _loads(region)):
                continue
            where = "inside the model" if wait.inside else "in the timed region"
            locations[Location(wait.place, f"{wait.kind} {where}")] = None
            key = wait.kind, str(wait.place)
            counts[key] = counts.get(key, 0) + wait.count
    if not locations:
        return None
    numbers = tuple(Number(f"{kind} at {place}", n, "count") for (kind, place), n in counts.items())
    return RuleMatch(numbers, tuple(locations))


def _loads(region: TimedRegion) -> bool:
    return any(work.kind == LOADING for work in region.host_work)


def _least_count(wait: Wait, region: TimedRegion) -> float:
    """From how many on a copy or wait in this region counts as repeated per call."""
    per_call = region.count / 2
    return per_call if wait.inside or wait.uploads else max(per_call, 2)


MISSING_SYNCHRONIZE = Rule(
    "missing-synchronize",
    "C1",
    "the clock was read before the device had done the work",
    "call torch.cuda.synchronize() before each reading of the clock, or time with CUDA events",
    missing_synchronize,
)
HOST_COPIES = Rule(
    "host-copies",
    "C16",
    "tensors went between host and device in the timed region",
    "move inputs to the device before the clock starts, and fetch results after it has stopped",
    host_copies,
)
