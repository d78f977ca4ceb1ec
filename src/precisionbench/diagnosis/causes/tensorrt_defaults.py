"""torch2trt's defaults leave the fast paths off."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.labels import FP32, TF32


def look(scene: CauseContext) -> CauseMatch | None:
    """A TensorRT row without a 16-bit or 8-bit mode."""
    if "torch2trt" not in scene.claims.packages or scene.label.claim not in (FP32, TF32):
        return None
    return CauseMatch((Number("precision modes switched on", 0, "count"),))


CAUSE = Cause(
    "tensorrt-defaults",
    "C9",
    "torch2trt builds float32 engines unless told otherwise",
    "add precision=fp16, or precision=int8 with calibration data",
    look,
)
