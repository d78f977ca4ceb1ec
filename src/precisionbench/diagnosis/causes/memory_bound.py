"""Much of the time is in memory-bound operations: batch norm, activations, additions."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import COPY, MATRIX, NORM, POINTWISE, REDUCTION

_MOST_MATRIX_SHARE = 0.6


def detect(context: CauseContext) -> CauseMatch | None:
    """A half row in which unfused operations take more than two fifths of the time."""
    facts = context.facts
    if not context.has_half_kernels:
        return None
    share = facts.share(NORM, POINTWISE, REDUCTION, COPY)
    if share <= 1 - _MOST_MATRIX_SHARE:
        return None
    return CauseMatch(
        (
            Number("time in operations that are bound by memory", share, "share"),
            Number("of it in normalisation", facts.share(NORM), "share"),
            Number("time in matrix work", facts.share(MATRIX), "share"),
        ),
        without(facts.share(NORM, POINTWISE)),  # at most, if all of them were fused
    )


CAUSE = Cause(
    "memory-bound",
    "C14",
    "unfused operations that are bound by memory",
    "fuse them with torch.compile or TensorRT; folding batch norm alone can cost more than it "
    "saves, where it leaves a bias to add",
    detect,
    "compiled",
    alternatives=("folded-batch-norm",),
)
