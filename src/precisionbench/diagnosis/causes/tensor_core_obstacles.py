"""Grouped, depthwise or misaligned layers, which tensor cores cannot take well."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, Found, Scene
from precisionbench.diagnosis.findings import Number
from precisionbench.errors import some

_LEAST_SHARE = 0.1


def look(scene: Scene) -> Found | None:
    """The time of a half row in such layers, their conversions included."""
    facts = scene.facts
    if not scene.claims_half or not facts.on_gpu or not facts.busy_s:
        return None
    bad = [work for work in facts.work if work.obstacles]
    share = sum(work.time_s + work.around_s for work in bad) / facts.busy_s
    if share <= _LEAST_SHARE:
        return None
    named = [f"{work.operation.layer or work.operation.name} ({work.obstacles[0]})" for work in bad]
    grouped = any(work.groups > 1 for work in bad)
    return Found(
        (
            Number("time in layers that tensor cores cannot take well", share, "share"),
            Number("such operations", sum(work.operation.count for work in bad), "count"),
        ),
        reason=some(named),
        remedy="use fewer groups or plain convolutions there, or leave those layers in float32"
        if grouped
        else "",
    )


CAUSE = Cause(
    "tensor-core-obstacles",
    "C12",
    "layers whose shapes keep tensor cores from being used well",
    "make channels and sizes multiples of 8 (pad them)",
    look,
    "padded-channels",
)
