"""Tensors are converted from NCHW to NHWC and back around convolutions."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.layouts import norms_of_contiguous_input
from precisionbench.diagnosis.parts import LAYOUT
from precisionbench.errors import some

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
    return CauseMatch(
        (
            Number("time in layout conversions", share, "share"),
            Number("layout conversions per call", count, "count"),
        ),
        without(share),
        remedy=_remedy(facts),
    )


def _remedy(facts: Facts) -> str:
    """A remedy for networks in which channels_last may not help; empty for others."""
    norms = norms_of_contiguous_input(facts.evidence, facts.on_gpu)
    names = some([f"{layer.path or layer.kind} ({layer.kind})" for layer in norms])
    if facts.row.options.get("memory_format") == "channels_last":
        return (
            f"use memory_format=contiguous: {names} converts channels_last tensors back"
            if norms
            else "find the layers that convert: they have no channels_last kernel, or their input "
            "is not channels_last"
        )
    if norms:
        return (
            f"replace {names} by a norm with a channels_last kernel, such as BatchNorm2d, before "
            "memory_format=channels_last is used; it may be slower here"
        )
    return ""


CAUSE = Cause(
    "layout-conversions",
    "layout conversions around convolutions",
    "use memory_format=channels_last for the model and its inputs; measure it, as it can be slower",
    detect,
    "channels-last",
)
