"""Much of a quantised row's time is in operations that 8-bit matmuls do not make faster."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import MATRIX, MEMORY_BOUND

_LEAST_SHARE = 0.4
# A row that gains this factor has most of what its matmuls could bring beside so much other work.
_MOST_GAIN = 1.5


def detect(context: CauseContext) -> CauseMatch | None:
    """A row that is hardly faster, with much time in operations that are bound by memory.

    Conversions to and from 8 bits are memory-bound too; they have other findings, and so has all
    that the row in floats does not do.
    """
    found, facts = context.quantisation, context.facts
    if found is None or not found.eight_bits or found.reference_s:
        return None
    if (context.gain_of_8_bits or 0.0) >= _MOST_GAIN:
        return None
    whole_s = facts.whole_s
    moving_s = _moving_s(facts) - found.activations_s - found.weights_s
    base = context.in_floats_of_engine
    if base and base.busy_s:  # what is not there in floats searches scales, and so on
        moving_s = min(moving_s, _moving_s(base))
    share = max(0.0, moving_s) / whole_s
    if share < _LEAST_SHARE:
        return None
    return CauseMatch(
        (
            Number("time in memory-bound operations", share, "share"),
            Number("GEMM/conv time", facts.share(MATRIX), "share"),
        ),
        without(share),  # at most, if all of them were fused
        remedy="" if context.is_eager else _OF_ENGINES,
    )


def _moving_s(facts: Facts) -> float:
    return sum(facts.by_category.get(category, 0.0) for category in MEMORY_BOUND)


_OF_ENGINES = (
    "quantise these operations too, so that 8-bit activations pass between layers, which moves "
    "fewer bytes; a lower precision of the matmuls alone gains little here"
)


CAUSE = Cause(
    "memory-bound-in-8-bits",
    "memory-bound operations, which 8-bit matmuls do not make faster",
    "fuse them with torch.compile or an engine, which can also pass 8-bit activations between "
    "layers; a lower precision of the matmuls alone gains little here",
    detect,
)
