"""The rules on labels of rows: a row ran in the precision that the script calls it by."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls, Model, Place
from precisionbench.scriptcheck.row_labels import Claim, claim_of_loops
from precisionbench.scriptcheck.rules.base import HALF_DTYPES, Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.rules.precision import is_plain_float32
from precisionbench.scriptcheck.timed_regions import TimedRegion
from precisionbench.scriptcheck.violations import Location

Contradicts = Callable[[Calls, Model], bool]


@attrs.frozen
class _Labelled:
    """Timings that have a label in common.

    Attributes:
        place: the line that the label is on, or that the loop with the label times.
        says: what the label is, as the beginning of a sentence.
        timed: the calls in these timings, each with its model.
    """

    place: Place
    says: str
    timed: tuple[tuple[Calls, Model], ...]


def float32_in_half(context: RuleContext) -> RuleMatch | None:
    """Detect timings that are called float32, and none of which ran in float32."""
    return _contradicted(context, Claim.FLOAT32, _is_in_half)


def half_in_float32(context: RuleContext) -> RuleMatch | None:
    """Detect timings that are called half precision, and all of which ran in float32.

    A model may cast inside, where no call of it shows that; only the source can rule it out.
    """
    if context.static.claims.may_cast:
        return None
    return _contradicted(context, Claim.HALF, _is_in_float32)


def _contradicted(context: RuleContext, claim: Claim, contradicts: Contradicts) -> RuleMatch | None:
    found = {
        Location(labelled.place, f"{labelled.says} {claim.value}; {_ran(*labelled.timed[0])}"): sum(
            calls.count for calls, _ in labelled.timed
        )
        for labelled in (*_by_lines(context, claim), *_by_loops(context, claim))
        if labelled.timed and all(contradicts(*one) for one in labelled.timed)
    }
    if not found:
        return None
    return RuleMatch((Number("calls", sum(found.values()), "count"),), tuple(found))


def _by_lines(context: RuleContext, claim: Claim) -> Iterator[_Labelled]:
    """Timings by the lines with a label that led to them, such as `t_fp32 = bench(model, x)`."""
    static, regions = context.static, context.regions
    labels = static.float32_places if claim is Claim.FLOAT32 else static.half_places
    places = {place for region in regions for place in region.callers} & labels
    for place in sorted(places, key=lambda place: place.line):
        timed = _timed(context, [region for region in regions if place in region.callers])
        yield _Labelled(place, "this line calls its timing", timed)


def _by_loops(context: RuleContext, claim: Claim) -> Iterator[_Labelled]:
    """Timings by the value of a loop variable that labels them."""
    groups: dict[tuple[Place, str, str], list[TimedRegion]] = {}
    for region in context.regions:
        found = claim_of_loops(region.loop_values)
        if found is not None and found[1] is claim:
            groups.setdefault((region.end, found[0].name, found[0].text), []).append(region)
    for (place, name, text), regions in groups.items():
        says = f"with {name} = {text} in the loop, this timing is called"
        yield _Labelled(place, says, _timed(context, regions))


def _timed(context: RuleContext, regions: list[TimedRegion]) -> tuple[tuple[Calls, Model], ...]:
    return tuple((calls, context.model(calls)) for region in regions for calls in region.calls)


def _is_in_half(calls: Calls, model: Model) -> bool:
    """Whether all outputs are in half; with patched functions, another rule speaks."""
    return bool(calls.outputs) and set(calls.outputs) <= HALF_DTYPES and model.patch_owner is None


def _is_in_float32(calls: Calls, model: Model) -> bool:
    is_module = model.kind == "module" and set(calls.outputs) == {"float32"}
    return is_module and is_plain_float32(calls, model)


def _ran(calls: Calls, model: Model) -> str:
    return (
        f"{model.class_name} has {'+'.join(model.parameters) or 'no'} parameters and gave "
        f"{'+'.join(calls.outputs)}{' under autocast' if calls.autocast else ''}"
    )


FLOAT32_IN_HALF = Rule(
    "float32-in-half",
    "",
    "a row that the script calls float32 ran in half precision",
    "end autocast and restore torch.set_default_dtype before this row, and make its model anew: "
    "model.half() and model.to() change a model in place",
    float32_in_half,
)
HALF_IN_FLOAT32 = Rule(
    "half-in-float32",
    "",
    "a row that the script calls half precision ran in float32",
    "cast the model and its inputs, or open torch.autocast for the device that the model is on",
    half_in_float32,
)
