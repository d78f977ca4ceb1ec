"""The GPU has no fast FP16/BF16 arithmetic."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.dtypes import BFLOAT16

# Ratio of the 16-bit peak to that of float32, below which there is little to gain.
_LEAST_RATIO = 1.3
# By compute capability, where a device's peaks are not known: none before 5.3, and a 64th on 6.1
# (CUDA C++ Programming Guide, table of arithmetic throughput).
_OF_CAPABILITY = {"5.0": 1.0, "5.2": 1.0, "6.1": 1 / 64}


def detect(context: CauseContext) -> CauseMatch | None:
    """By the device's data-sheet peaks; `precisionbench examine` measures them."""
    gain = context.speedup.value if context.speedup else 1.0
    ratio = _ratio(context)
    if not context.claims_half or ratio is None:
        return None
    if ratio >= _LEAST_RATIO or gain >= _LEAST_RATIO:
        return None
    return CauseMatch(
        (
            Number("FP16/BF16 peak over float32 peak", ratio, "ratio"),
            Number("speed-up over the reference", gain, "ratio"),
        )
    )


def _ratio(context: CauseContext) -> float | None:
    device = context.facts.device
    rate = "bf16" if context.label.claim == BFLOAT16 else "fp16"
    single, half = context.facts.peak("fp32"), context.facts.peak(rate)
    if device is not None and single is not None:
        return half / single if half is not None else 1.0  # a known device without that rate
    gpu = context.data.environment.gpu
    return _OF_CAPABILITY.get(gpu.compute_capability) if gpu else None


CAUSE = Cause(
    "no-fast-half",
    "no fast FP16/BF16 arithmetic on this GPU",
    "stay in float32, or try INT8 or another GPU",
    detect,
)
