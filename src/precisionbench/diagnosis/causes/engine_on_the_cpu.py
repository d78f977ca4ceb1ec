"""Layers of an engine's row on a GPU ran on the CPU."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number

_CPU = "CPU"


def detect(context: CauseContext) -> CauseMatch | None:
    """By what the engine reports of each layer: engines fall back with a line in their log."""
    layers = context.facts.row.engine_operations
    on_cpu = [layer for layer in layers if layer.place.startswith(_CPU)]
    if not context.facts.on_gpu or not on_cpu:
        return None
    numbers = (
        Number("layers on the CPU", len(on_cpu), "count"),
        Number("layers in all", len(layers), "count"),
    )
    return CauseMatch(numbers, reason=f"the first: {on_cpu[0].name} ({on_cpu[0].short_name})")


CAUSE = Cause(
    "engine-on-the-cpu",
    "Layers of the engine ran on the CPU",
    "replace what these layers compute by operations that the provider has for the GPU, in this "
    "precision, or use another provider",
    detect,
)
