"""The device has no fast 16-bit arithmetic."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, Found, Scene
from precisionbench.diagnosis.findings import Number

# 16-bit peak over float32's, below which there is little to win.
_LEAST_RATIO = 1.3


def look(scene: Scene) -> Found | None:
    """By the device's peaks; measured ones are `precisionbench doctor`'s."""
    single, half = scene.facts.peak("fp32"), scene.facts.peak("fp16")
    gain = scene.speedup.value if scene.speedup else 1.0
    if not scene.claims_half or not scene.facts.on_gpu or single is None or half is None:
        return None
    if half / single >= _LEAST_RATIO or gain >= _LEAST_RATIO:
        return None
    return Found(
        (
            Number("peak in half over float32", half / single, "ratio"),
            Number("speed-up over the reference", gain, "ratio"),
        )
    )


CAUSE = Cause(
    "no-fast-half",
    "C3",
    "the device computes no faster in 16 bits",
    "stay in float32, or try INT8 or another device",
    look,
)
