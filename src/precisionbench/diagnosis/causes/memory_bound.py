"""Most of the time is moving memory: batch norm, activations, additions."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, Found, Scene, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import COPY, MATRIX, NORM, POINTWISE, REDUCTION
from precisionbench.statistics import Interval

_MOST_MATRIX_SHARE = 0.6


def look(scene: Scene) -> Found | None:
    """A half row in which unfused operations take more than two fifths of the time."""
    facts = scene.facts
    if not scene.half_kernels_were_seen:
        return None
    share = facts.share(NORM, POINTWISE, REDUCTION, COPY)
    if share <= 1 - _MOST_MATRIX_SHARE:
        return None
    return Found(
        (
            Number("time in operations that are bound by memory", share, "share"),
            Number("of it in normalisation", facts.share(NORM), "share"),
            Number("time in matrix work", facts.share(MATRIX), "share"),
        ),
        _gain(facts),
        untestable=not any("batch_norm" in o.name for o in facts.evidence.operations),
    )


def _gain(facts: Facts) -> Interval:
    """Without normalisation, which folding takes away; at most without all that can be fused."""
    fused = without(facts.share(NORM, POINTWISE)).value
    norm = facts.share(NORM)
    return Interval(without(norm).value if norm else fused, 1.0, fused)


CAUSE = Cause(
    "memory-bound",
    "C14",
    "unfused operations that are bound by memory",
    "fold batch norm into the convolutions, or fuse with torch.compile or TensorRT",
    look,
    "folded-batch-norm",
)
