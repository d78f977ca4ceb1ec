"""The rules on the precision of a float32 model: TF32, and half inputs."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls, Model
from precisionbench.scriptcheck.rules.base import HALF_DTYPES, Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import TimedRegion
from precisionbench.scriptcheck.violations import Location


def tf32_baseline(context: RuleContext) -> RuleMatch | None:
    """Detect a timed float32 model whose operations ran in TF32, where that makes a row wrong."""
    timed = _timed_in_tf32(context)
    if not timed or not (_compares_precisions(context) or context.static.claims.float32_lines):
        return None
    locations = [
        Location(r.end, f"{m.class_name}: {' and '.join(m.tf32_operations)} ran in TF32")
        for r, m in timed
    ]
    requested = all(model.tf32_requested for _, model in timed)
    return RuleMatch(
        (Number("timings of float32 models", len(timed), "count"),),
        tuple(dict.fromkeys(locations)),
        "the script sets TF32 itself; call the row TF32" if requested else "",
    )


def tf32_notes(context: RuleContext) -> Iterator[str]:
    """A note on TF32 in a script that neither compares precisions nor calls a row float32.

    Args:
        context: what was observed and read.
    """
    timed = _timed_in_tf32(context)
    if timed and tf32_baseline(context) is None:
        names = ", ".join(dict.fromkeys(model.class_name for _, model in timed))
        kinds = " and ".join(dict.fromkeys(k for _, model in timed for k in model.tf32_operations))
        yield f"{names}: {kinds} ran in TF32, not in IEEE float32"


def _timed_in_tf32(context: RuleContext) -> list[tuple[TimedRegion, Model]]:
    return [
        (region, model)
        for region, calls, model in context.timed_calls
        if model.tf32_operations and is_plain_float32(calls, model)
    ]


def _compares_precisions(context: RuleContext) -> bool:
    """Whether something else was timed beside a plain float32 model."""
    return len({is_plain_float32(calls, model) for _, calls, model in context.timed_calls}) > 1


def is_plain_float32(calls: Calls, model: Model) -> bool:
    """Whether nothing but TF32 makes these calls compute in less than float32.

    Args:
        calls: of the model.
        model: that was called.
    """
    return (
        model.is_float32
        and model.patch_owner is None
        and not calls.autocast
        and not HALF_DTYPES & {*calls.inputs, *calls.outputs}
    )


def half_into_float32(context: RuleContext) -> RuleMatch | None:
    """Detect half inputs of a model with float32 parameters, outside autocast."""
    given_half = [
        (calls, model)
        for calls in context.all_calls
        if (model := context.model(calls)).is_float32
        and not model.patched_by_apex
        and model.patch_owner != calls.model  # patches made for a model may cast its inputs
        and not calls.autocast
        and HALF_DTYPES & set(calls.inputs)
    ]
    if not given_half:
        return None
    locations = [
        Location(
            c.place, f"{m.class_name} has float32 parameters and was given {', '.join(c.inputs)}"
        )
        for c, m in given_half
    ]
    count = sum(calls.count for calls, _ in given_half)
    patched = all(model.patch_owner is not None for _, model in given_half)
    return RuleMatch(
        (Number("calls", count, "count"),),
        tuple(dict.fromkeys(locations)),
        "torch was patched when they ran; check again without the patches" if patched else "",
    )


TF32_BASELINE = Rule(
    "tf32-baseline",
    "C13",
    "a float32 model was timed in TF32",
    "set torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32 to False, "
    "or call the row TF32",
    tf32_baseline,
)
HALF_INTO_FLOAT32 = Rule(
    "half-into-float32",
    "C19",
    "a float32 model was given half inputs",
    "give each model inputs of its own dtype",
    half_into_float32,
)
