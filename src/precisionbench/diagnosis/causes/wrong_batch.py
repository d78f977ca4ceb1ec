"""The output holds another batch than the input."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def look(scene: CauseContext) -> CauseMatch | None:
    """Against the reference's output, which says what the model gives."""
    if scene.base is None or scene.base is scene.facts:
        return None
    batch = scene.facts.row.batch_size
    ours, theirs = scene.facts.evidence.outputs, scene.base.evidence.outputs
    if len(ours) != len(theirs):
        return None
    # The sizes of some outputs depend on the data: of detections, for instance.
    found = {
        own.shape[0]
        for own, other in zip(ours, theirs, strict=True)
        if own.shape and other.shape and other.shape[0] == batch
    }
    if len(found) != 1 or found == {batch} or batch is None:
        return None
    own_batch = found.pop()
    return CauseMatch(
        (Number("items given", own_batch, "count"), Number("items wanted", batch, "count")),
        proof="output-shape",
    )


CAUSE = Cause(
    "wrong-batch",
    "C17",
    "the engine gave another number of items than it was given",
    "build a static engine for the measured batch; throughput counts items that were not computed",
    look,
    costs_time=False,
)
