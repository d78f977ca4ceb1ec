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
            Number("time in memory-bound operations", share, "share"),
            Number("time in normalisation", facts.share(NORM), "share"),
            Number("GEMM/conv time", facts.share(MATRIX), "share"),
        ),
        without(facts.share(NORM, POINTWISE)),  # at most, if all of them were fused
    )


CAUSE = Cause(
    "memory-bound",
    "unfused memory-bound operations",
    "fuse them with torch.compile or TensorRT; folding only batch norm can be slower, because it "
    "can add a bias to each convolution",
    detect,
    "compiled",
    alternatives=("folded-batch-norm",),
)
