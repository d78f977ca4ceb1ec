"""Every call allocates device memory from the driver."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def detect(context: CauseContext) -> CauseMatch | None:
    """Allocations by torch's caching allocator in a warm call."""
    count = context.facts.evidence.device_allocations
    if not count or count < 1:
        return None
    return CauseMatch((Number("allocations from the driver in a call", count, "count"),))


CAUSE = Cause(
    "device-allocations",
    "C6",
    "every call takes memory from the driver",
    "free the device's memory for torch's allocator, use a smaller batch, or leave out "
    "torch.cuda.empty_cache() in forward",
    detect,
)
