"""torch2trt's defaults allow float32 only."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.dtypes import FLOAT32, TF32


def detect(context: CauseContext) -> CauseMatch | None:
    """A row of torch2trt in float32 or TF32."""
    if "torch2trt" not in context.claims.packages or context.label.claim not in (FLOAT32, TF32):
        return None
    return CauseMatch((Number("reduced precisions allowed", 0, "count"),))


CAUSE = Cause(
    "tensorrt-defaults",
    "float32 engine, the default of torch2trt",
    "add precision=fp16, or precision=int8 with calibration data",
    detect,
)
