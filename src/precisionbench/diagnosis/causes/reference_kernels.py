"""Quantised operations run as reference code, which computes in floats."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """By operations that PyTorch has for converted models, and weights quantised in every call."""
    found, facts = context.quantisation, context.facts
    if found is None or not found.reference_s:
        return None
    whole_s = facts.whole_s
    converting = (found.weights_s + found.activations_s) / whole_s
    in_floats_s = sum(work.time_s for work in (*found.dequantised, *found.floats))
    if converting < _LEAST_SHARE:
        return None
    return CauseMatch(
        (
            Number("time in conversions to and from 8 bits", converting, "share"),
            Number("GEMM/conv time in floats", in_floats_s / whole_s, "share"),
        ),
        without(converting),
    )


CAUSE = Cause(
    "reference-kernels",
    "quantised operations run as reference code in floats",
    "compile the converted model (torch.compile with freezing replaces the reference code by int8 "
    "kernels), or convert it for an engine; convert_fx instead of convert_to_reference_fx",
    detect,
)
