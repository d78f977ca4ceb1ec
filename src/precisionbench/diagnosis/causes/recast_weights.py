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
            Number("weight casts per call", facts.weight_casts, "count"),
            Number("casts per call", facts.casts, "count"),
            Number("time in casts", share, "share"),
        ),
        without(share),
    )


CAUSE = Cause(
    "recast-weights",
    "weights are cast in every call",
    "cast the model once (`.half()`), or use one autocast context for all calls; autocast caches "
    "weights only if they require gradients, and not in inference_mode",
    detect,
    "cast-once",
)
