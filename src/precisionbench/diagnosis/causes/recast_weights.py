"""Weights are cast again in every call."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import CAST

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """Casts of tensors that have the shape of a weight, and the time of all casts."""
    facts = context.facts
    share = facts.share(CAST)
    if facts.weight_casts < 1 or share <= _LEAST_SHARE:
        return None
    return CauseMatch(
        (
            Number("casts of weights in a call", facts.weight_casts, "count"),
            Number("casts in a call", facts.casts, "count"),
            Number("time in casts", share, "share"),
        ),
        without(share),
    )


CAUSE = Cause(
    "recast-weights",
    "C7",
    "weights are cast in every call",
    "cast the model once (`.half()`), or keep one autocast context open around all calls, outside "
    "of inference_mode and with weights that require gradients",
    detect,
    "cast-once",
)
