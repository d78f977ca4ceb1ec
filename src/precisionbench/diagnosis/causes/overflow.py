"""Values exceed the range of float16."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number

# So close to the largest float16, 65504, that its range is the cause.
_NEAR_THE_END = 2e4


def detect(context: CauseContext) -> CauseMatch | None:
    """Non-finite elements where float64 has finite ones, and the first layer that has them."""
    errors = context.facts.evidence.errors
    first = next((error for error in errors if error.nonfinite_count), None)
    agreement = context.facts.row.agreement
    count = agreement.nonfinite_count if agreement else 0
    if first is None and not count:
        return None
    if first is None:
        return CauseMatch((Number("non-finite outputs", count, "count"),), proof="counted")
    largest = max(first.reference_max_abs, first.max_abs)
    return CauseMatch(
        (
            Number("non-finite elements in that layer", first.nonfinite_count, "count"),
            Number("largest finite magnitude in that layer", largest, ""),
        ),
        proof="counted",
        reason=f"first in {first.path or 'the output'}",
        remedy="use bfloat16, which has float32's range, or keep that layer in float32"
        if largest > _NEAR_THE_END
        else "check that layer: its values fit into float16, so an intermediate sum or product "
        "overflows, or it divides by a number that became zero",
    )


CAUSE = Cause(
    "overflow",
    "infinite or NaN outputs where float64 is finite",
    "use bfloat16, or keep the affected layers in float32",
    detect,
    costs_time=False,
)
