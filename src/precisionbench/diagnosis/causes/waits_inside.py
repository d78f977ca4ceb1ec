"""A call synchronises with the GPU, e.g. by `.item()`."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Interval


def detect(context: CauseContext) -> CauseMatch | None:
    """By torch's own debug mode for synchronising operations, before the row was timed."""
    row = context.facts.row
    if "sync_inside" not in row.passes.labels:
        return None
    numbers = [
        Number(f"{name} per call", count, "count")
        for name, count in context.facts.evidence.host_waits.items()
    ]
    busy_s = context.facts.busy_s
    gain = max(1.0, row.latency.value / busy_s) if busy_s else 1.0
    numbers.append(Number("GPU busy time per call", busy_s, "s"))
    return CauseMatch(tuple(numbers), Interval(gain, 1.0, gain))


CAUSE = Cause(
    "waits-inside",
    "the model synchronises with the GPU in every call",
    "remove .item(), .cpu(), .nonzero(), prints and branches on tensor values from forward",
    detect,
)
