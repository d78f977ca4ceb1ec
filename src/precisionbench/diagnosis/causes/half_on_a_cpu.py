"""16 bits on a CPU that has no fast arithmetic for them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Verdict

# Without a verdict, which rows measured one after another do not have, the whole interval must lie
# below a gain.
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
    "C28",
    "most CPUs have no fast 16-bit arithmetic",
    "stay in float32, or use a CPU with AMX or AVX512-BF16 for bfloat16, AVX512-FP16 for float16",
    detect,
)
