"""The float32 row ran in TF32."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.dtypes import FLOAT32, TF32

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """TF32 kernels in a row that claims float32."""
    share = context.facts.kernel_share_of(TF32)
    if context.label.claim != FLOAT32 or share <= _LEAST_SHARE:
        return None
    return CauseMatch((Number("GEMM/conv time in TF32 kernels", share, "share"),))


CAUSE = Cause(
    "tf32-baseline",
    "the float32 row ran in TF32",
    "compare with both eager (IEEE float32) and eager:precision=tf32",
    detect,
    "ieee-float32",
    flatters=True,
)
