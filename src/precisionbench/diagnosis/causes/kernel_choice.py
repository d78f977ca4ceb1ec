"""Convolutions that tensor cores could take run on ordinary cores."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, Found, Scene
from precisionbench.diagnosis.findings import Number

_LEAST_SHARE = 0.1


def look(scene: Scene) -> Found | None:
    """Kernels known to use ordinary cores, of layers without an obstacle."""
    facts = scene.facts
    if not scene.claims_half or not facts.on_gpu or not facts.busy_s:
        return None
    spent_s = sum(w.cuda_core_s for w in facts.work if not w.obstacles and not w.is_stem)
    share = spent_s / facts.busy_s
    if share <= _LEAST_SHARE:
        return None
    cudnn = scene.data.environment.cudnn or ""
    return Found(
        (
            Number("time of eligible layers on ordinary cores", share, "share"),
            Number("matrix time on tensor cores", facts.tensor_core_share, "share"),
        ),
        reason=f"cuDNN {cudnn}" if cudnn else "",
    )


CAUSE = Cause(
    "kernel-choice",
    "C11",
    "layers that tensor cores could take run on ordinary cores",
    "let cuDNN try its algorithms (cudnn_benchmark=true), or take another cuDNN version",
    look,
    "cudnn-benchmark",
)
