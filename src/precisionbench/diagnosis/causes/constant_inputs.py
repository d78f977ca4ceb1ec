"""The inputs are zeros, which let a device run faster than data do."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number

_MOST_ZEROS = 0.9


def look(scene: CauseContext) -> CauseMatch | None:
    """Said once, of the reference."""
    share = scene.facts.evidence.input_zero_share
    if share is None or share < _MOST_ZEROS or scene.speedup is not None:
        return None
    return CauseMatch((Number("zeros among the inputs", share, "share"),))


CAUSE = Cause(
    "constant-inputs",
    "C22",
    "the inputs are zeros",
    "time random or real data: power, and with it the clock, depends on the bits that change, and "
    "agreement of zeros says nothing",
    look,
    "random-inputs",
    flatters=True,
)
