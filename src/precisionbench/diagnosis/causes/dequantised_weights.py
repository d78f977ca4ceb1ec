"""Quantised weights become floats in every call, and are multiplied in floats."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.quantised import Quantisation

_LEAST_SHARE = 0.2
# A row of at most this speed in floats is held up by its kernels, not by what it fails to save.
_SLOW = 0.5


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
    whole_s = context.facts.whole_s
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
        remedy=_ACTIVATIONS if context.facts.on_gpu else "",
    )


def _inside(found: Quantisation, context: CauseContext) -> CauseMatch | None:
    whole_s = context.facts.whole_s
    share = sum(work.time_s for work in found.weight_only) / whole_s
    if share < _LEAST_SHARE:
        return None
    return CauseMatch(
        (Number("time in kernels that multiply quantised weights in floats", share, "share"),),
        reason=_reason(context),
        remedy=_remedy(found, context),
    )


def _reason(context: CauseContext) -> str:
    """Why its kernels do not pay: they save nothing here, or are made for a few rows."""
    gain, floats = context.gain_of_8_bits, context.in_floats
    if gain is None or floats is None or gain > _SLOW:
        return "they save memory traffic, which helps small batches only"
    return (
        "these kernels are written for a few rows of activations; with this batch the call takes "
        f"{1 / gain:.2g} times as long as {floats.row.backend}"
    )


def _remedy(found: Quantisation, context: CauseContext) -> str:
    """What helps; on a GPU it is the compiler that chooses the kernel of 8-bit weights."""
    is_int8 = any("_weight_int8pack" in work.operation.name for work in found.weight_only)
    return f"{_UNCOMPILED}; or {_ACTIVATIONS}" if is_int8 and context.facts.on_gpu else _ACTIVATIONS


_ACTIVATIONS = (
    "quantise the activations too, for a matmul in 8 bits (torchao:precision=int8-dynamic,"
    "compile=true, or float8 where the GPU has it); weight-only quantisation saves memory, and "
    "time only with a few rows of activations"
)
_UNCOMPILED = (
    "do not compile a row with int8 weights on a GPU: torch.compile replaces the conversion and "
    "the matmul by a kernel without tensor cores (aten::_weight_int8pack_mm)"
)

CAUSE = Cause(
    "dequantised-weights",
    "quantised weights are multiplied in floats",
    "quantise the activations too, for a matmul in 8 bits; weight-only quantisation saves memory, "
    "and time only at small batches with a kernel that reads the quantised weights itself "
    "(torch.compile fuses the conversion into the matmul)",
    detect,
)
