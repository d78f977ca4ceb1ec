"""Grouped, depthwise or misaligned layers, which tensor cores run inefficiently."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.work import MatrixWork
from precisionbench.errors import some

_LEAST_SHARE = 0.1


def detect(context: CauseContext) -> CauseMatch | None:
    """The time of a 16-bit row in such layers, layout conversions included."""
    facts = context.facts
    if not context.has_half_kernels:
        return None
    if facts.row.launch_bound == "host_bound":  # kernels do not limit the latency
        return None
    bad = [work for work in facts.work if work.obstacles]
    share = sum(work.time_s + work.other_kernels_s for work in bad) / facts.busy_s
    grouped = any(work.groups > 1 for work in bad)
    if share <= _LEAST_SHARE or not (grouped or _matters(facts, bad)):
        return None
    return CauseMatch(
        (
            Number("time in such layers", share, "share"),
            Number("operations in such layers", sum(work.operation.count for work in bad), "count"),
        ),
        reason=some([work.obstacle_text for work in bad]),
        remedy="use fewer groups or plain convolutions there, or leave those layers in float32"
        if grouped
        else "",
    )


def _matters(facts: Facts, bad: Sequence[MatrixWork]) -> bool:
    """Whether the layers have enough FLOPs; padding a head of ten classes would gain nothing."""
    known = [work for work in facts.work if work.flops]
    total = sum(work.flops or 0.0 for work in known)
    mine = sum(work.flops or 0.0 for work in bad)
    return not total or mine / total > _LEAST_SHARE


CAUSE = Cause(
    "tensor-core-obstacles",
    "layer shapes that tensor cores run inefficiently",
    "pad channels and sizes to multiples of 8",
    detect,
    "padded-channels",
)
