"""The rules on the values of tensors: non-finite outputs, constant and denormal inputs."""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.violations import Location

_MOST_DENORMALS = 0.1  # of an input; fewer are usual in data that fades out


def non_finite_outputs(context: RuleContext) -> RuleMatch | None:
    """Detect a model whose first output has infinite or NaN elements."""
    models = [model for model in context.observations.models if model.non_finite_share]
    if not models:
        return None
    worst = max(model.non_finite_share or 0.0 for model in models)
    locations = [
        Location(m.place, f"{m.class_name} gave {m.non_finite_share:.0%} infinite or NaN")
        for m in models
    ]
    return RuleMatch((Number("infinite or NaN", worst, "share"),), tuple(locations))


def constant_inputs(context: RuleContext) -> RuleMatch | None:
    """Detect a timed model whose inputs are the same number throughout."""
    models = {c.model: m for _, c, m in context.timed_calls if m.constant_input is not None}
    if not models:
        return None
    locations = [
        Location(m.place, f"all inputs of {m.class_name} are {m.constant_input:g}")
        for m in models.values()
    ]
    value = next(iter(models.values())).constant_input or 0.0
    return RuleMatch((Number("all elements", value, ""),), tuple(locations))


def denormal_inputs(context: RuleContext) -> RuleMatch | None:
    """Detect a timed model on a CPU whose inputs hold many denormal numbers."""
    models = {c.model: m for _, c, m in context.timed_calls if m.denormal_share >= _MOST_DENORMALS}
    if not models:
        return None
    locations = [
        Location(m.place, f"{m.denormal_share:.0%} of an input of {m.class_name} are denormal")
        for m in models.values()
    ]
    worst = max(model.denormal_share for model in models.values())
    return RuleMatch((Number("denormal numbers", worst, "share"),), tuple(locations))


NON_FINITE_OUTPUTS = Rule(
    "non-finite-outputs",
    "C23",
    "outputs are infinite or NaN",
    "use trained weights, or scale random ones so that half precision can hold the activations",
    non_finite_outputs,
)
CONSTANT_INPUTS = Rule(
    "constant-inputs",
    "C22",
    "the inputs are all the same number",
    "use random numbers: constants take less power, and a GPU may then clock higher",
    constant_inputs,
)
DENORMAL_INPUTS = Rule(
    "denormal-inputs",
    "",
    "inputs are denormal numbers, which many CPUs compute slowly",
    "use inputs of the usual size, or torch.set_flush_denormal(True)",
    denormal_inputs,
)
