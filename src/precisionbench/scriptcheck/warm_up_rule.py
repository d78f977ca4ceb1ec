"""The gate of the warm-up: the first call of a model, or of a new shape, was timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls
from precisionbench.scriptcheck.rule import RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import Region
from precisionbench.scriptcheck.violations import Location

# A first call counts where it takes this share of the timing more than its like do.
_COLD_SHARE = 0.02
_COLD_FACTOR = 2.0
# From so many timings on the same lines a script can leave the first out.
_REPEATED = 3


@attrs.frozen
class _Cold:
    """A first call that was timed.

    Attributes:
        region: in which.
        number: the model's.
        model: its class.
        first_s: a call of the first kind.
        usual_s: a later one; None where there is none.
        count: calls in the region.
    """

    region: Region
    number: int
    model: str
    first_s: float
    usual_s: float | None
    count: int


def no_warm_up(scene: RuleContext) -> RuleMatch | None:
    """The first call of a model, or of a new shape, was timed."""
    cold = [found for region in scene.regions for found in _cold(scene, region)]
    if not cold:
        return None
    sure = [one for one in cold if one.usual_s and not _is_repeated(scene, one)]
    worst = max(sure or cold, key=lambda one: one.first_s / (one.usual_s or one.first_s))
    numbers = [Number("first call", worst.first_s, "s")]
    if worst.usual_s:
        numbers.append(Number("later calls", worst.usual_s, "s"))
    reason = "" if sure else _why_not_sure(worst)
    return RuleMatch(tuple(numbers), tuple(_cold_sight(one) for one in cold), reason)


def _is_repeated(scene: RuleContext, cold: _Cold) -> bool:
    """Whether the model was timed so often on these lines that a script can leave the first out."""
    lines = (cold.region.start, cold.region.end)
    alike = [r for r in scene.regions if (r.start, r.end) == lines and cold.number in r.models]
    return len(alike) >= _REPEATED


def _why_not_sure(cold: _Cold) -> str:
    if cold.usual_s:
        return "the script times each call, and may leave the first out"
    return "there is no later call to compare it with"


def _cold(scene: RuleContext, region: Region) -> Iterator[_Cold]:
    for number in dict.fromkeys(calls.model for calls in region.calls if calls.fresh):
        inside = [calls for calls in region.calls if calls.model == number]
        fresh, fresh_s = sum(c.fresh for c in inside), sum(c.fresh_s for c in inside)
        usual_s = _usual_s(inside) or _usual_s(c for c in scene.all_calls if c.model == number)
        first_s = fresh_s / fresh
        if usual_s is not None:
            excess = (fresh_s - fresh * usual_s) / region.read_s if region.read_s else 0.0
            if first_s < _COLD_FACTOR * usual_s or excess < _COLD_SHARE:
                continue
        count = sum(calls.count for calls in inside)
        yield _Cold(region, number, scene.seen.models[number].kind, first_s, usual_s, count)


def _usual_s(calls: Iterable[Calls]) -> float | None:
    """A call that is none of the first."""
    found = list(calls)
    count = sum(c.count - c.fresh for c in found)
    return sum(c.total_s - c.fresh_s for c in found) / count if count else None


def _cold_sight(cold: _Cold) -> Location:
    times = f", {cold.first_s / cold.usual_s:.3g} times a later one" if cold.usual_s else ""
    return Location(
        cold.region.end,
        f"the first of {cold.count} timed calls of {cold.model} had no warm-up{times}"
        if cold.count > 1
        else f"the timed call of {cold.model} had no warm-up{times}",
    )
