"""16 bits on a CPU that has no fast arithmetic for them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Verdict

# Rows measured one after another have no verdict; so much more is a gain all the same.
_GAIN = 1.05


def look(scene: CauseContext) -> CauseMatch | None:
    """A 16-bit row on a CPU that is not faster than the reference."""
    if scene.facts.on_gpu or not scene.claims_half or scene.speedup is None:
        return None
    if scene.speedup.verdict is Verdict.FASTER or scene.speedup.value > _GAIN:
        return None
    return CauseMatch((Number("speed-up over the reference", scene.speedup.value, "ratio"),))


CAUSE = Cause(
    "half-on-a-cpu",
    "C28",
    "most CPUs have no fast 16-bit arithmetic",
    "stay in float32, or use a CPU with AMX or AVX512-BF16 for bfloat16, AVX512-FP16 for float16",
    look,
)
