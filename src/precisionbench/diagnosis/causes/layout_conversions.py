"""Tensors are converted from NCHW to NHWC and back around convolutions."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import LAYOUT

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in layout-conversion kernels."""
    facts = context.facts
    share = facts.share(LAYOUT)
    if share <= _LEAST_SHARE:
        return None
    count = sum(
        kernel.count
        for part in facts.parts
        if part.category == LAYOUT
        for kernel in part.operation.kernels
        if kernel.name == part.kernel
    )
    if facts.row.options.get("memory_format") == "channels_last":
        remedy = "look which layers convert: they have no channels_last kernel, or get other input"
    else:
        remedy = ""
    return CauseMatch(
        (
            Number("time in layout conversions", share, "share"),
            Number("layout conversions in a call", count, "count"),
        ),
        without(share),
        remedy=remedy,
    )


CAUSE = Cause(
    "layout-conversions",
    "C10",
    "layout conversions around convolutions",
    "use memory_format=channels_last for the model and its inputs; it can be slower, so measure it",
    detect,
    "channels-last",
)
