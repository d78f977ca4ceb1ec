"""A call copies tensors between host and GPU memory."""

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
            Number("time in host-device copies", share, "share"),
            Number("copied per call", sum(copy.size_bytes for copy in copies), "byte"),
            Number("copies per call", sum(copy.count for copy in copies), "count"),
        ),
        without(share),
    )


CAUSE = Cause(
    "host-copies",
    "host-device copies in every call",
    "keep tensors on the GPU, load inputs before the timed call, and report compute time and "
    "end-to-end time separately",
    detect,
)
