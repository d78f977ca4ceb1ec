"""The inputs are zeros, with which a device runs faster than with real data."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number

_MOST_ZEROS = 0.9


def detect(context: CauseContext) -> CauseMatch | None:
    """Reported once, for the reference row."""
    share = context.facts.evidence.input_zero_share
    if share is None or share < _MOST_ZEROS or context.speedup is not None:
        return None
    return CauseMatch((Number("zeros among the inputs", share, "share"),))


CAUSE = Cause(
    "constant-inputs",
    "C22",
    "the inputs are zeros",
    "time random or real data: power, and with it the clock, depends on the bits that change, and "
    "agreement of zeros says nothing",
    detect,
    "random-inputs",
    flatters=True,
)
