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
        remedy = (
            "find the layers that convert: they have no channels_last kernel, or their input is "
            "not channels_last"
        )
    else:
        remedy = ""
    return CauseMatch(
        (
            Number("time in layout conversions", share, "share"),
            Number("layout conversions per call", count, "count"),
        ),
        without(share),
        remedy=remedy,
    )


CAUSE = Cause(
    "layout-conversions",
    "layout conversions around convolutions",
    "use memory_format=channels_last for the model and its inputs; measure it, as it can be slower",
    detect,
    "channels-last",
)
