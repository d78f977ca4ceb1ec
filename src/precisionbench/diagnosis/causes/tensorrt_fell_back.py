"""TensorRT used float32 although a lower precision was allowed."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.dtypes import FLOAT16, FLOAT32, INT8, TF32

_LEAST_SHARE = 0.2


def detect(context: CauseContext) -> CauseMatch | None:
    """By its kernels' names: a flag of torch2trt allows a precision and does not force it."""
    if "torch2trt" not in context.claims.packages or context.label.claim not in (FLOAT16, INT8):
        return None
    wide = context.facts.kernel_share_of(FLOAT32, TF32)
    if wide < _LEAST_SHARE:
        return None
    return CauseMatch((Number("GEMM/conv time in float32 kernels", wide, "share"),))


CAUSE = Cause(
    "tensorrt-fell-back",
    "TensorRT used float32 although a lower precision was allowed",
    "build a strongly typed engine, or check which of its layers have no kernel in that precision",
    detect,
)
