"""The rule on how much was timed."""

from __future__ import annotations

from collections.abc import Iterable

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Place
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch, shown_time
from precisionbench.scriptcheck.timed_regions import TimedRegion
from precisionbench.scriptcheck.violations import Location

_FEW_CALLS = 5
_SHORT_S = 0.001
_LONG_S = 1.0


def too_short(context: RuleContext) -> RuleMatch | None:
    """Detect timings of so few calls, or so little time, that their spread is unknown.

    Timings that were repeated show their spread, however short each of them is.
    """
    short = []
    for group in _by_end(context.regions):
        if any(region.pending for region in group) or not any(r.calls for r in group):
            continue  # its time is another
        if _is_cold_start(context, group) or _is_warm_up(context, group):
            continue
        count, read_s = sum(r.count for r in group), sum(r.read_s for r in group)
        is_counted = all(calls.count for region in group for calls in region.calls)
        is_few = is_counted and count < _FEW_CALLS and read_s < _LONG_S
        is_repeated = len(group) >= _FEW_CALLS
        if is_few or (read_s < _SHORT_S and not is_repeated):
            short.append((group[0].end, count, read_s))
    if not short:
        return None
    _, count, read_s = min(short, key=lambda one: one[2])
    return RuleMatch(
        (Number("calls", count, "count"), Number("total time", read_s, "s")),
        tuple(Location(place, f"{n} timed calls in {shown_time(s)}") for place, n, s in short),
        "the spread is unknown and may be small",
    )


def _is_cold_start(context: RuleContext, group: list[TimedRegion]) -> bool:
    """Whether only first calls are timed here, and later ones elsewhere."""
    calls = [calls for region in group for calls in region.calls]
    models = {one.model for one in calls}
    elsewhere = {
        one.model
        for region, one, _ in context.timed_calls
        if region.end != group[0].end and one.count > one.new_shape_count
    }
    return all(one.count == one.new_shape_count for one in calls) and models <= elsewhere


def _is_warm_up(context: RuleContext, group: list[TimedRegion]) -> bool:
    """Whether the script itself calls these timings a warm-up or a first call."""
    return all(region.callers & context.static.warm_up_places for region in group)


def _by_end(regions: Iterable[TimedRegion]) -> Iterable[list[TimedRegion]]:
    """Regions that end on the same line, wherever they start: a clock may start at several."""
    groups: dict[Place, list[TimedRegion]] = {}
    for region in regions:
        groups.setdefault(region.end, []).append(region)
    return groups.values()


TOO_SHORT = Rule(
    "too-short",
    "",
    "very little was timed",
    "time more calls, and repeat the timing to see how much it varies",
    too_short,
)
