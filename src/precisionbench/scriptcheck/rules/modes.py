"""The rules on torch's modes: training mode and autograd."""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.violations import Location


def train_mode(context: RuleContext) -> RuleMatch | None:
    """Detect a model timed in training mode that has layers which depend on the mode."""
    timed = [
        (region, calls, model)
        for region, calls, model in context.timed_calls
        if calls.training and model.mode_dependent_layers and not region.trains
    ]
    if not timed:
        return None
    locations = [
        Location(
            r.end,
            f"{m.class_name} was in training mode; {m.mode_dependent_layers} of its layers "
            "depend on it",
        )
        for r, _, m in timed
    ]
    count = sum(calls.count for _, calls, _ in timed)
    return RuleMatch((Number("calls", count, "count"),), tuple(dict.fromkeys(locations)))


def gradients_on(context: RuleContext) -> RuleMatch | None:
    """Detect a model timed with autograd on although no backward pass follows."""
    timed = [(r, c, m) for r, c, m in context.timed_calls if c.gradients and not r.trains]
    if not timed:
        return None
    locations = [
        Location(r.end, f"{m.class_name} gave an output that requires gradients")
        for r, _, m in timed
    ]
    count = sum(calls.count for _, calls, _ in timed)
    return RuleMatch((Number("calls", count, "count"),), tuple(dict.fromkeys(locations)))


TRAIN_MODE = Rule(
    "train-mode",
    "C21",
    "the model was timed in training mode",
    "call model.eval() first",
    train_mode,
)
GRADIENTS_ON = Rule(
    "gradients-on",
    "C21",
    "autograd was on, and no backward pass ran",
    "time under torch.inference_mode() or torch.no_grad()",
    gradients_on,
)
