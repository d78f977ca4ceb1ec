"""Every call allocates GPU memory with cudaMalloc."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def detect(context: CauseContext) -> CauseMatch | None:
    """Allocations by torch's caching allocator in a warm call."""
    count = context.facts.evidence.device_allocations
    if not count or count < 1:
        return None
    return CauseMatch((Number("cudaMalloc calls per call", count, "count"),))


CAUSE = Cause(
    "device-allocations",
    "GPU memory allocation (cudaMalloc) in every call",
    "free GPU memory for PyTorch's caching allocator, use a smaller batch, or remove "
    "torch.cuda.empty_cache() from forward",
    detect,
)
