"""Quantised weights become floats in every call, and are multiplied in floats."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.quantised import Quantisation

_LEAST_SHARE = 0.2


def detect(context: CauseContext) -> CauseMatch | None:
    """Conversions of weights before their matmul, or kernels that convert them inside.

    Reference code has a finding of its own, and so have casts by the model's own code.
    """
    found = context.quantisation
    if found is None or found.reference_s:
        return None
    if found.weights_s:
        return _converted(found, context)
    return None if context.gains_from_8_bits else _inside(found, context)


def _converted(found: Quantisation, context: CauseContext) -> CauseMatch | None:
    whole_s = max(context.facts.busy_s, context.facts.row.latency.value)
    converting = found.weights_s / whole_s
    multiplying = sum(work.time_s for work in found.dequantised) / whole_s
    if converting + multiplying < _LEAST_SHARE:
        return None
    return CauseMatch(
        (
            Number("conversions of weights per call", found.weight_conversions, "count"),
            Number("time in them", converting, "share"),
            Number("time in their matmuls and convolutions in floats", multiplying, "share"),
        ),
        without(converting),
    )


def _inside(found: Quantisation, context: CauseContext) -> CauseMatch | None:
    whole_s = max(context.facts.busy_s, context.facts.row.latency.value)
    share = sum(work.time_s for work in found.weight_only) / whole_s
    if share < _LEAST_SHARE:
        return None
    return CauseMatch(
        (Number("time in kernels that multiply 8-bit weights in floats", share, "share"),),
        reason="they save memory traffic, which helps small batches only",
    )


CAUSE = Cause(
    "dequantised-weights",
    "quantised weights are multiplied in floats",
    "quantise the activations too, for a matmul in 8 bits; weight-only quantisation saves memory, "
    "and time only at small batches with a kernel that reads the quantised weights itself "
    "(torch.compile fuses the conversion into the matmul)",
    detect,
)
