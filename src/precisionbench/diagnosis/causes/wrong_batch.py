"""The output has another batch size than the input."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def detect(context: CauseContext) -> CauseMatch | None:
    """By comparison with the reference's output."""
    if context.base is None or context.base is context.facts:
        return None
    batch = context.facts.row.batch_size
    ours, theirs = context.facts.evidence.outputs, context.base.evidence.outputs
    if len(ours) != len(theirs):
        return None
    # The size of some outputs depends on the data, e.g. of detections.
    batches = {
        own.shape[0]
        for own, other in zip(ours, theirs, strict=True)
        if own.shape and other.shape and other.shape[0] == batch
    }
    if len(batches) != 1 or batches == {batch} or batch is None:
        return None
    own_batch = batches.pop()
    return CauseMatch(
        (Number("output batch size", own_batch, "count"), Number("expected", batch, "count")),
        proof="output-shape",
    )


CAUSE = Cause(
    "wrong-batch",
    "wrong output batch size",
    "build a static engine for the measured batch size; throughput counts items that were not "
    "computed",
    detect,
    costs_time=False,
)
