"""float16 on a CPU that has no fast arithmetic for it."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, Found, Scene
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.labels import FP16
from precisionbench.statistics import Verdict


def look(scene: Scene) -> Found | None:
    """A float16 row on a CPU that is not faster than the reference."""
    if scene.facts.on_gpu or scene.label.claim != FP16 or scene.speedup is None:
        return None
    if scene.speedup.verdict is Verdict.FASTER:
        return None
    return Found((Number("speed-up over the reference", scene.speedup.value, "ratio"),))


CAUSE = Cause(
    "half-on-a-cpu",
    "C28",
    "most CPUs have no fast float16 arithmetic",
    "try bfloat16 on a CPU with AMX or AVX512-BF16, or stay in float32",
    look,
)
