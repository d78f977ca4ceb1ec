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
    Part,
    adds_by_index,
    computes_weights,
)

_KINDS = (NORM, POINTWISE, REDUCTION, COPY)
_MOST_MATRIX_SHARE = 0.6
# On a CPU: a mean time below which an operation is mostly overhead, and the share of float32's time
# that 16 bits would need at most if memory traffic alone counted, with a margin.
_LEAST_MEAN_S = 20e-6
_MOST_OF_FLOAT32 = 0.7


def detect(context: CauseContext) -> CauseMatch | None:
    """A row in 16 bits in which unfused operations take more than two fifths of the time."""
    facts = context.facts
    if not context.claims_half or not facts.busy_s:
        return None
    share = _share(facts, *_KINDS)
    if share <= 1 - _MOST_MATRIX_SHARE:
        return None
    numbers = (
        Number("time in memory-bound operations", share, "share"),
        Number("time in normalisation", facts.share(NORM), "share"),
        Number("GEMM/conv time", facts.share(MATRIX), "share"),
    )
    if not facts.on_gpu:
        return _on_a_cpu(context, numbers)
    fused = without(_share(facts, NORM, POINTWISE))  # at most, if all of them were fused
    return CauseMatch(numbers, fused)


def _on_a_cpu(context: CauseContext, numbers: tuple[Number, ...]) -> CauseMatch | None:
    """The match of a CPU, on which PyTorch computes in float32: where 16 bits gain little."""
    facts, base = context.facts, context.base
    if base is None or base is facts or context.label.is_wrong or not context.is_eager:
        return None
    own = _fusable(facts, _KINDS)
    spent_s, before_s = (_time_s(one, _KINDS) for one in (facts, base))
    mean_s = spent_s / sum(part.operation.count for part in own)
    if not before_s or spent_s < _MOST_OF_FLOAT32 * before_s or mean_s < _LEAST_MEAN_S:
        return None
    longest = max(own, key=lambda part: part.time_s).operation
    return CauseMatch(
        (*numbers, Number("their time over that in the reference", spent_s / before_s, "ratio")),
        without(_share(facts, *_KINDS)),
        reason="PyTorch computes them in float32 on a CPU; the longest is "
        f"{longest.name} in {longest.layer or 'forward'}",
        remedy=_ON_A_CPU,
    )


def _time_s(facts: Facts, kinds: tuple[str, ...]) -> float:
    return sum(part.time_s for part in _fusable(facts, kinds))


def _fusable(facts: Facts, kinds: tuple[str, ...]) -> list[Part]:
    """Parts in categories, without atomic additions, which nothing can fuse, and weights."""
    return [
        part
        for part in facts.parts
        if part.category in kinds
        and not adds_by_index(part.operation)
        and not computes_weights(part.operation)  # which have a finding of their own
    ]


def _share(facts: Facts, *categories: str) -> float:
    return _time_s(facts, categories) / facts.whole_s


_ON_A_CPU = (
    "fuse them with torch.compile; on a CPU 16 bits only save memory traffic there, because "
    "PyTorch uses 16-bit instructions for matmuls and convolutions only"
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
