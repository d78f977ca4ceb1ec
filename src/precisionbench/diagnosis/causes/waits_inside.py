"""A call waits for the device, e.g. by `.item()`."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Interval


def look(scene: CauseContext) -> CauseMatch | None:
    """By torch's own debug mode for synchronising operations, asked before the row was timed."""
    row = scene.facts.row
    if "sync_inside" not in row.passes.labels:
        return None
    numbers = [
        Number(f"{name} in a call", count, "count")
        for name, count in scene.facts.evidence.host_waits.items()
    ]
    busy_s = scene.facts.busy_s
    gain = max(1.0, row.latency.value / busy_s) if busy_s else 1.0
    numbers.append(Number("time in which the device works", busy_s, "s"))
    return CauseMatch(tuple(numbers), Interval(gain, 1.0, gain))


CAUSE = Cause(
    "waits-inside",
    "C1",
    "the model waits for the device in every call",
    "leave out .item(), .cpu(), .nonzero(), prints and branches on tensors in forward",
    look,
)
