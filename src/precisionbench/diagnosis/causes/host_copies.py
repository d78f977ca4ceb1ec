"""A call copies between the host's memory and the device's."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number

_LEAST_SHARE = 0.02
# Less is a number or two; then the synchronisation costs the time, not the copy.
_LEAST_BYTES = 64 * 1024


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of latency in host-device copies; copies of single numbers do not count."""
    facts = context.facts
    copies = [c for c in facts.evidence.copies if c.kind in ("HtoD", "DtoH")]
    spent_s = sum(copy.time_s for copy in copies)
    share = min(0.99, spent_s / facts.row.latency.value)
    if share <= _LEAST_SHARE or sum(c.size_bytes for c in copies) < _LEAST_BYTES:
        return None
    return CauseMatch(
        (
            Number("time in copies between host and device", share, "share"),
            Number("copied in a call", sum(copy.size_bytes for copy in copies), "byte"),
            Number("copies in a call", sum(copy.count for copy in copies), "count"),
        ),
        without(share),
    )


CAUSE = Cause(
    "host-copies",
    "C16",
    "tensors go through the host's memory in every call",
    "keep tensors on the device, load inputs beforehand, and report compute and end-to-end apart",
    detect,
)
