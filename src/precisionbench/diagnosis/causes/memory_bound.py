"""Much of the time is in memory-bound operations: batch norm, activations, additions."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import (
    COPY,
    MATRIX,
    NORM,
    POINTWISE,
    REDUCTION,
    adds_by_index,
)

_MOST_MATRIX_SHARE = 0.6


def detect(context: CauseContext) -> CauseMatch | None:
    """A half row in which unfused operations take more than two fifths of the time."""
    facts = context.facts
    if not context.has_half_kernels:
        return None
    share = _share(facts, NORM, POINTWISE, REDUCTION, COPY)
    if share <= 1 - _MOST_MATRIX_SHARE:
        return None
    return CauseMatch(
        (
            Number("time in memory-bound operations", share, "share"),
            Number("time in normalisation", facts.share(NORM), "share"),
            Number("GEMM/conv time", facts.share(MATRIX), "share"),
        ),
        without(_share(facts, NORM, POINTWISE)),  # at most, if all of them were fused
    )


def _share(facts: Facts, *categories: str) -> float:
    """The share of time in categories, without atomic additions, which nothing can fuse."""
    atomic_s = sum(
        p.time_s for p in facts.parts if p.category in categories and adds_by_index(p.operation)
    )
    return facts.share(*categories) - atomic_s / max(facts.busy_s, facts.row.latency.value)


CAUSE = Cause(
    "memory-bound",
    "unfused memory-bound operations",
    "fuse them with torch.compile or TensorRT; folding only batch norm can be slower, because it "
    "can add a bias to each convolution",
    detect,
    "compiled",
    alternatives=("folded-batch-norm",),
)
