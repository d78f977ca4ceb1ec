"""Layers so small that quantising costs more than multiplying in 8 bits saves."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number

_LEAST_SHARE = 0.15
# A kernel of less time than this is mostly overhead of its call.
_SHORT_S = 30e-6


def detect(context: CauseContext) -> CauseMatch | None:
    """A row that multiplies in 8 bits and is not faster, by what it spends besides multiplying."""
    found, facts = context.quantisation, context.facts
    if found is None or not found.eight_bits or found.reference_s or context.gains_from_8_bits:
        return None
    whole_s, base = facts.whole_s, context.in_floats_of_engine
    base = base if base and base.matrix_s else None
    converting = found.activations_s / whole_s
    added = max(0.0, _besides_s(facts) - _besides_s(base)) / whole_s if base else 0.0
    count = sum(work.operation.count for work in found.eight_bits)
    mean_s = sum(work.time_s for work in found.eight_bits) / count
    slow = base is not None and mean_s < _SHORT_S and facts.matrix_s >= base.matrix_s
    if max(converting, added) < _LEAST_SHARE and not slow:
        return None
    numbers = [Number("time in conversions of activations", converting, "share")]
    if base:
        numbers += [
            Number("time besides GEMM/conv beyond that of the row in floats", added, "share"),
            Number("GEMM/conv time in floats", base.matrix_s, "s"),
        ]
    numbers += [
        Number("GEMM/conv time in this row", facts.matrix_s, "s"),
        Number("mean time of an 8-bit matmul or convolution", mean_s, "s"),
    ]
    remedy = "" if context.is_eager else _OF_ENGINES
    return CauseMatch(tuple(numbers), without(max(converting, added)), remedy=remedy)


_OF_ENGINES = "use a larger batch, or leave small layers in floats"


def _besides_s(facts: Facts) -> float:
    """Time of a call that is not in matmuls or convolutions: other operations, Python code, idle.

    Compiled code has its conversions in kernels of its own, and an engine in its layers.
    """
    return facts.whole_s - facts.matrix_s


CAUSE = Cause(
    "too-small-to-quantise",
    "quantising costs more than 8 bits save",
    "use a larger batch, static instead of dynamic quantisation, or torch.compile, which fuses the "
    "conversions into other kernels; leave small layers in floats",
    detect,
    alternatives=("larger-batch",),
)
