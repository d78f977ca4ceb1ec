"""The rules on host and device: work that is pending at a reading, and copies between the two."""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Wait
from precisionbench.scriptcheck.rules.base import STATIC_ONLY, Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_place
from precisionbench.scriptcheck.violations import Location


def missing_synchronize(context: RuleContext) -> RuleMatch | None:
    """Detect a clock that was read while the timed work was still pending on the device."""
    early = [region for region in context.regions if region.pending]
    if not early:
        return _unsynchronized_in_source(context)
    measured = [region for region in early if region.device_s]
    numbers = [Number("timings read too early", len(early), "count")]
    if measured:
        worst = min(measured, key=lambda r: r.read_s / (r.device_s or 1))
        numbers += [
            Number("read", worst.read_s, "s"),
            Number("really", worst.device_s or 0, "s"),
            Number("of the true time", worst.read_s / (worst.device_s or 1), "share"),
        ]
    return RuleMatch(tuple(numbers), tuple(_early_location(group) for group in by_place(early)))


def _early_location(group: list[TimedRegion]) -> Location:
    measured = [region for region in group if region.device_s]
    error = ""
    if measured:
        read_s, device_s = (sum(getattr(r, n) for r in measured) for n in ("read_s", "device_s"))
        error = f": {read_s:.4g} s read, {device_s:.4g} s needed ({_percent(read_s, device_s)})"
    return Location(
        group[0].end,
        f"{_times(group)}, the clock started at line {group[0].start.line} was read with work "
        f"pending{error}",
    )


def _percent(read_s: float, device_s: float) -> str:
    share = abs(1 - read_s / device_s)
    return f"{share:.1%} too {'little' if read_s < device_s else 'much'}"


def _times(group: list[TimedRegion]) -> str:
    return "once" if len(group) == 1 else f"{len(group)} times"


def _unsynchronized_in_source(context: RuleContext) -> RuleMatch | None:
    timings = context.static.unsynchronized
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

    A single fetch at the end is not counted: some scripts synchronize with it.
    """
    counts: dict[tuple[str, str], int] = {}
    locations: dict[Location, None] = {}
    for region in context.regions:
        for wait in region.waits:
            if wait.count < _least_count(wait, region):
                continue
            where = "inside the model" if wait.inside else "in the timed region"
            locations[Location(wait.place, f"{wait.kind} {where}")] = None
            key = wait.kind, str(wait.place)
            counts[key] = counts.get(key, 0) + wait.count
    if not locations:
        return None
    numbers = tuple(Number(f"{kind} at {place}", n, "count") for (kind, place), n in counts.items())
    return RuleMatch(numbers, tuple(locations))


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
