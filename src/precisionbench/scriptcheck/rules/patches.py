"""The rule on functions of torch that stay patched for later models."""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls, Model
from precisionbench.scriptcheck.rules.base import (
    HALF_DTYPES,
    STATIC_ONLY,
    Rule,
    RuleContext,
    RuleMatch,
)
from precisionbench.scriptcheck.violations import Location


def leaked_patches(context: RuleContext) -> RuleMatch | None:
    """Detect a model that ran while torch was patched for an earlier model."""
    models = context.observations.models
    victims = [
        (number, model)
        for number, model in enumerate(models)
        if model.patch_owner not in (None, number) and not model.patched_by_apex
    ]
    if not victims:
        return _patches_in_source(context)
    half = {c.model: c for c in context.all_calls if _gives_half(c, context.model(c))}
    proved = [n for n, m in victims if n in half or models[m.patch_owner or 0].patched_by_apex]
    locations = [_location(context, number, half.get(number)) for number, _ in victims]
    return RuleMatch(
        (
            Number("models that ran so", len(victims), "count"),
            Number("functions of torch patched", max(m.patch_count for _, m in victims), "count"),
            Number(
                "float32 models that gave half outputs",
                sum(number in half for number, _ in victims),
                "count",
            ),
        ),
        tuple(dict.fromkeys(locations)),
        "" if proved else "the patches may be meant for these models, too",
    )


def _gives_half(calls: Calls, model: Model) -> bool:
    return model.is_float32 and not calls.autocast and bool(HALF_DTYPES & set(calls.outputs))


def _location(context: RuleContext, number: int, half: Calls | None) -> Location:
    models = context.observations.models
    model = models[number]
    owner = models[model.patch_owner or 0]
    by = "Apex O1 for " if owner.patched_by_apex else ""
    effect = f"; its parameters are float32 and its output {half.outputs[0]}" if half else ""
    return Location(
        model.place,
        f"{model.class_name} (model {number + 1}) ran with {_functions(model.patch_count)} of "
        f"torch patched since {by}{owner.class_name} (model {(model.patch_owner or 0) + 1}, "
        f"{owner.place}), e.g. {model.patched_names[0]}{effect}",
    )


def _functions(count: int) -> str:
    return f"{count} function{'s' * (count != 1)}"


def _patches_in_source(context: RuleContext) -> RuleMatch | None:
    patches = context.static.patches
    if not patches or context.observations.ending.is_complete:
        return None
    locations = tuple(Location(patch.place, patch.description) for patch in patches)
    return RuleMatch((Number("such lines", len(patches), "count"),), locations, STATIC_ONLY)


LEAKED_PATCHES = Rule(
    "leaked-patches",
    "C15",
    "torch was patched for an earlier model, and a later one ran with the patches",
    "run each of them in a process of its own; nothing undoes Apex O1",
    leaked_patches,
)
