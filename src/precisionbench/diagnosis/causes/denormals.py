"""Denormal numbers make operations on a CPU slow."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.errors import some

_LEAST_VALUES = 0.01  # of the values of a tensor
_LEAST_SHARE = 0.1


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of a call's time in layers with denormal weights, inputs or outputs."""
    facts = context.facts
    most = {d.layer: d.share for d in facts.evidence.denormals if d.share >= _LEAST_VALUES}
    if facts.on_gpu or not most:
        return None
    share = _time_share(facts, set(most))
    if share <= _LEAST_SHARE:
        return None
    return CauseMatch(
        (
            Number("time in layers with denormal values", share, "share"),
            Number("denormal values in a tensor, at most", max(most.values()), "share"),
        ),
        reason=some([layer or "the model's own forward" for layer in most]),
    )


def _time_share(facts: Facts, layers: set[str]) -> float:
    """The share of time in operations directly in some layers."""
    operations = facts.evidence.operations
    total_s = sum(o.time_s for o in operations)
    spent_s = sum(o.time_s for o in operations if o.layer in layers)
    return spent_s / total_s if total_s else 0.0


CAUSE = Cause(
    "denormals",
    "denormal values on a CPU",
    "call torch.set_flush_denormal(True) before the calls, or set such weights and inputs to zero",
    detect,
    "flush-denormals",
)
