"""FP16/BF16 on a CPU without fast arithmetic for it."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Verdict

# Where the verdict is inconclusive, as for rows that were not interleaved, the whole interval must
# be below a gain.
_GAIN = 1.05


def detect(context: CauseContext) -> CauseMatch | None:
    """A 16-bit row on a CPU that is not faster than the reference."""
    if context.facts.on_gpu or not context.claims_half or context.speedup is None:
        return None
    if context.speedup.verdict is Verdict.FASTER or context.speedup.high > _GAIN:
        return None
    return CauseMatch((Number("speed-up over the reference", context.speedup.value, "ratio"),))


CAUSE = Cause(
    "half-on-a-cpu",
    "no fast FP16/BF16 arithmetic on this CPU",
    "stay in float32, or use a CPU with AMX or AVX512-BF16 (bfloat16) or AVX512-FP16 (float16)",
    detect,
)
