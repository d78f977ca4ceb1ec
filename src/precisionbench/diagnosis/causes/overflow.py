"""Values exceed the range of their dtype, in outputs of layers or within them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.overflows import harmful_overflow
from precisionbench.diagnosis.remedies import for_overflow
from precisionbench.results.dtypes import FLOAT16
from precisionbench.results.evidence import LayerError, Overflow

# So close to the largest number of the dtype that its range is the cause: float16 ends at 65504.
_NEAR_THE_END = {FLOAT16: 2e4}
_NEAR_THE_END_OF_FLOAT32 = 1e38  # and of bfloat16


def detect(context: CauseContext) -> CauseMatch | None:
    """Non-finite values where float64 has finite ones, and the first layer that has them.

    The layers of a model that changes from call to call are not those of the call in float64: an
    input that it multiplies in place ends as infinity in any dtype.
    """
    errors = context.facts.evidence.errors
    within = harmful_overflow(context.facts)
    first = next((error for error in errors if error.nonfinite_count), None)
    if within is not None:
        return _within_a_layer(context, within)
    if first is not None and not context.facts.is_unsteady:
        return _in_an_output(context, first)
    agreement = context.facts.row.agreement
    count = agreement.nonfinite_count if agreement else 0
    numbers = (Number("non-finite outputs", count, "count"),)
    return CauseMatch(numbers, proof="counted") if count else None


def _within_a_layer(context: CauseContext, overflow: Overflow) -> CauseMatch:
    errors = context.facts.evidence.errors
    layer = next((error for error in errors if error.path == overflow.layer), None)
    place = overflow.layer or "the model's own forward"
    numbers = [Number("non-finite results of that operation", overflow.count, "count")]
    if layer is not None and not layer.nonfinite_count and layer.relative_l2 is not None:
        numbers.append(
            Number("error of that layer's output, which is finite", layer.relative_l2, "")
        )
    largest = layer.reference_max_abs if layer is not None else None
    return CauseMatch(
        tuple(numbers),
        proof="counted",
        reason=f"first in {place}, operation {overflow.operation}, in {overflow.dtype}",
        remedy=for_overflow(context.facts.row, overflow.layer, overflow.dtype, largest),
    )


def _in_an_output(context: CauseContext, first: LayerError) -> CauseMatch:
    largest = max(first.reference_max_abs, first.max_abs)
    dtype = context.label.claim or FLOAT16
    row, magnitude = context.facts.row, first.reference_max_abs
    return CauseMatch(
        (
            Number("non-finite elements in that layer", first.nonfinite_count, "count"),
            Number("largest finite magnitude in that layer", largest, ""),
        ),
        proof="counted",
        reason=f"first in {first.path or 'the output'}",
        remedy=for_overflow(row, first.path, dtype, magnitude)
        if largest > _NEAR_THE_END.get(dtype, _NEAR_THE_END_OF_FLOAT32)
        else f"check that layer: its values fit into {dtype}, so an intermediate sum or product "
        "overflows, or it divides by a number that became zero",
    )


CAUSE = Cause(
    "overflow",
    "infinite or NaN values where float64 is finite",
    "use bfloat16, or keep the affected layers in float32",
    detect,
    costs_time=False,
)
