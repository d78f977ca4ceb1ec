"""Norms without a channels_last kernel convert the layout back in a channels_last row."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.layouts import conversions_around_norms, norms_of_contiguous_input
from precisionbench.errors import some

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in copies and layout conversions of such norms and of convolutions."""
    facts = context.facts
    if facts.row.options.get("memory_format") != "channels_last":
        return None
    norms = norms_of_contiguous_input(facts.evidence, facts.on_gpu)
    found = conversions_around_norms(facts) if norms else []
    share = sum(p.time_s for p in found) / facts.whole_s
    if share <= _LEAST_SHARE:
        return None
    count = sum(part.operation.count for part in found)
    return CauseMatch(
        (
            Number("time in layout conversions and copies", share, "share"),
            Number("copies per call", count, "count"),
        ),
        without(min(1.0, share)),
        reason=some([f"{layer.path or layer.kind} ({layer.kind})" for layer in norms]),
    )


CAUSE = Cause(
    "norms-undo-channels-last",
    "norms convert channels_last tensors back",
    "use memory_format=contiguous, or norms with a channels_last kernel, such as BatchNorm2d",
    detect,
    "contiguous",
)
