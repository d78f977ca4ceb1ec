"""The rule on warm-up: the first call of a model, or with a new input shape, was timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls, Place
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.rules.new_inputs import inputs_by_place
from precisionbench.scriptcheck.timed_regions import TimedRegion
from precisionbench.scriptcheck.violations import Location

# A first call counts if it is this much slower than later ones and adds this share of the timing.
_SLOW_FACTOR = 2.0
_EXCESS_SHARE = 0.02
# From this many warm timings on the same lines on, a script can discard the first.
_REPEATED = 2


@attrs.frozen
class _FirstCall:
    """The timed first call of a model.

    Attributes:
        region: the timed region it is in.
        number: the model's number.
        class_name: the model's class.
        places: the lines that call it.
        first_s: mean time of the calls with a new input shape.
        later_s: mean time of the other calls; None if there are none.
        first_count: number of its calls in the region that have a new input shape.
        count: calls of the model in the region.
        is_compiled: whether `torch.compile` compiled a graph in the region.
        is_known: whether the model was called before, with inputs of other shapes.
    """

    region: TimedRegion
    number: int
    class_name: str
    places: frozenset[Place]
    first_s: float
    later_s: float | None
    first_count: int
    count: int
    is_compiled: bool = False
    is_known: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether the region has no other calls of the model."""
        return self.first_count == self.count


def no_warm_up(context: RuleContext) -> RuleMatch | None:
    """Detect a timed region that includes the first call of a model, or of a new shape.

    A first call that is timed apart, beside timings of later calls, may be meant so; and so may one
    of many single timings that the script need not average, and a timing that the script itself
    calls a warm-up. None of these is detected.
    """
    other = frozenset(
        (inputs.number, inputs.start, inputs.end)
        for inputs in inputs_by_place(context)
        if inputs.is_new_each_time or inputs.is_compiled_again  # these have rules of their own
    )
    first_spans = _first_spans(context)
    cold = [
        first
        for region in context.regions
        for first in _slow_first_calls(context, region, other, first_spans)
        if not _may_be_meant(context, first)
    ]
    if not cold:
        return None
    confirmed = [first for first in cold if first.later_s and not first.is_alone]
    confirmed += [first for first in cold if first.is_alone and _is_repeated(context, first)]
    worst = max(confirmed or cold, key=lambda one: one.first_s / (one.later_s or one.first_s))
    numbers = [Number("first call", worst.first_s, "s")]
    if worst.later_s:
        numbers.append(Number("later calls", worst.later_s, "s"))
    reason = "" if confirmed else _why_suspected(worst)
    return RuleMatch(tuple(numbers), tuple(dict.fromkeys(map(_location, cold))), reason)


def _may_be_meant(context: RuleContext, first: _FirstCall) -> bool:
    if first.region.callers & context.static.warm_up_places:
        return True
    if _is_repeated(context, first):
        return not context.static.claims.averages_all
    return first.is_alone and any(
        calls.model == first.number and calls.count > calls.new_shape_count
        for _, calls, _ in context.timed_calls
    )


def _is_repeated(context: RuleContext, first: _FirstCall) -> bool:
    """Whether warm calls are timed so often on these lines that a script can discard the first."""

    def repeats(region: TimedRegion) -> bool:
        own = [calls for calls in region.calls if calls.model == first.number]
        is_warm = not any(calls.new_shape_count for calls in own)
        return is_warm and any(calls.place in first.places for calls in own)

    lines = (first.region.start, first.region.end)
    alike = (r for r in context.regions if (r.start, r.end) == lines)
    least = 1 if context.static.claims.names_warm_up else _REPEATED
    return sum(map(repeats, alike)) >= least


def _why_suspected(first: _FirstCall) -> str:
    if first.later_s:
        return "it is timed apart from later calls, which may be meant"
    return "there is no later call to compare it with"


def _slow_first_calls(
    context: RuleContext,
    region: TimedRegion,
    other: frozenset[tuple[int, Place, Place]],
    first_spans: dict[int, int],
) -> Iterator[_FirstCall]:
    for number in dict.fromkeys(calls.model for calls in region.calls if calls.new_shape_count):
        if (number, region.start, region.end) in other:
            continue
        inside = [calls for calls in region.calls if calls.model == number]
        compiled = any(calls.compile_count for calls in inside)
        known = first_spans[number] <= region.first_reading
        first_count = sum(c.new_shape_count for c in inside)
        costly = context.observations.models[number].shape_dependent
        is_comparable = costly and first_count == 1 < sum(calls.count for calls in inside)
        if known and not compiled and not is_comparable:
            continue  # calls with longer inputs take longer, new or not
        first_total_s = sum(c.new_shape_s for c in inside)
        first_s = first_total_s / first_count
        later_s = _later_s(inside) or _later_s(c for c in context.all_calls if c.model == number)
        if later_s is not None:
            excess_s = first_total_s - first_count * later_s
            share = excess_s / region.read_s if region.read_s else 0.0
            if first_s < _SLOW_FACTOR * later_s or share < _EXCESS_SHARE:
                continue
        count = sum(calls.count for calls in inside)
        name = context.observations.models[number].class_name
        places = frozenset(calls.place for calls in inside)
        times = first_s, later_s
        yield _FirstCall(region, number, name, places, *times, first_count, count, compiled, known)


def _first_spans(context: RuleContext) -> dict[int, int]:
    """The number of the span in which each model was called first."""
    first: dict[int, int] = {}
    for number, span in enumerate(context.observations.spans):
        for calls in span.calls:
            first.setdefault(calls.model, number)
    return first


def _later_s(groups: Iterable[Calls]) -> float | None:
    """Mean time of the calls whose input shape was not new."""
    groups = list(groups)
    count = sum(c.count - c.new_shape_count for c in groups)
    return sum(c.total_s - c.new_shape_s for c in groups) / count if count else None


def _location(first: _FirstCall) -> Location:
    factor = first.first_s / first.later_s if first.later_s else 0.0
    times = f", {factor:{',.0f' if factor >= 100 else '.3g'}} times a later one" if factor else ""
    times += ", and includes compilation by torch.compile" * first.is_compiled
    if first.is_known:
        return Location(
            first.region.end,
            f"{first.first_count} of {first.count} timed calls of {first.class_name} had an input "
            f"shape that was not warmed up{times}",
        )
    return Location(
        first.region.end,
        f"the first of {first.count} timed calls of {first.class_name} had no warm-up{times}"
        if first.count > 1
        else f"the timed call of {first.class_name} had no warm-up{times}",
    )


NO_WARM_UP = Rule(
    "no-warm-up",
    "C6",
    "the first call of a model, or of a new input shape, was timed",
    "call the model a few times with the same shapes before the clock starts",
    no_warm_up,
)
