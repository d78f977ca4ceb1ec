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
    whole_s = max(facts.busy_s, facts.row.latency.value)
    converting = found.activations_s / whole_s
    base = context.base if context.gain_of_8_bits is not None else None
    idle = max(0.0, _idle_s(facts) - (_idle_s(base) if base else 0.0)) / whole_s
    count = sum(work.operation.count for work in found.eight_bits)
    mean_s = sum(work.time_s for work in found.eight_bits) / count
    slow = base is not None and mean_s < _SHORT_S and facts.matrix_s >= base.matrix_s
    if converting + idle < _LEAST_SHARE and not slow:
        return None
    numbers = [
        Number("time in conversions of activations", converting, "share"),
        Number("more idle time than in floats", idle, "share"),
        Number("mean time of an 8-bit matmul or convolution", mean_s, "s"),
    ]
    if base and base.matrix_s:
        numbers.append(Number("GEMM/conv time in floats", base.matrix_s, "s"))
        numbers.append(Number("GEMM/conv time in 8 bits", facts.matrix_s, "s"))
    return CauseMatch(tuple(numbers), without(converting + idle))


def _idle_s(facts: Facts) -> float:
    """GPU idle time of a call; on a CPU the time between operations, in Python code."""
    return max(0.0, facts.row.latency.value - facts.busy_s) if facts.busy_s else 0.0


CAUSE = Cause(
    "too-small-to-quantise",
    "quantising costs more than 8 bits save",
    "use a larger batch, static instead of dynamic quantisation, or torch.compile, which fuses the "
    "conversions into other kernels; leave small layers in 16 bits",
    detect,
    alternatives=("larger-batch",),
)
