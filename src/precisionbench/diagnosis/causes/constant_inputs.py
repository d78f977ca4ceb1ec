"""The inputs are zeros, which a GPU processes faster than real data."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number

_MOST_ZEROS = 0.9


def detect(context: CauseContext) -> CauseMatch | None:
    """Reported once, for the reference row."""
    share = context.facts.evidence.input_zero_share
    if share is None or share < _MOST_ZEROS or context.speedup is not None:
        return None
    return CauseMatch((Number("zeros in the inputs", share, "share"),))


CAUSE = Cause(
    "constant-inputs",
    "the inputs are zeros",
    "measure with random or real data: power and clocks depend on the data, and outputs for zeros "
    "do not show the numerical error",
    detect,
    "random-inputs",
    flatters=True,
)
