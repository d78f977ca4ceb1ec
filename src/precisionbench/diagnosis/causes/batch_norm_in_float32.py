"""Normalisation runs in float32 in a half-precision model."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import NORM

_LEAST_SHARE = 0.1


def detect(context: CauseContext) -> CauseMatch | None:
    """Normalisation of tensors that are float32, in a row that claims half."""
    facts = context.facts
    if not context.has_half_kernels:
        return None
    spent_s = sum(
        part.time_s
        for part in facts.parts
        if part.category == NORM
        and part.operation.inputs
        and part.operation.inputs[0].dtype == "float32"
    )
    share = spent_s / facts.busy_s
    if share <= _LEAST_SHARE:
        return None
    return CauseMatch(
        (Number("time in float32 normalisation", share, "share"),), without(share / 2)
    )


CAUSE = Cause(
    "batch-norm-in-float32",
    "float32 normalisation in a half-precision model",
    "give it half-precision tensors; cuDNN computes in float32 internally (Apex: O3, or O2 with "
    "keep_batchnorm_fp32=false)",
    detect,
)
