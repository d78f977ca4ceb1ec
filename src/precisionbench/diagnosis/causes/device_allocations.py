"""A call takes memory from the driver."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def look(scene: CauseContext) -> CauseMatch | None:
    """By torch's allocator, in a call after many others."""
    count = scene.facts.evidence.device_allocations
    if not count or count < 1:
        return None
    return CauseMatch((Number("allocations from the driver in a call", count, "count"),))


CAUSE = Cause(
    "device-allocations",
    "C6",
    "every call takes memory from the driver",
    "free the device's memory for torch's allocator, use a smaller batch, or leave out "
    "torch.cuda.empty_cache() in forward",
    look,
)
