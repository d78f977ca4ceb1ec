"""Operations within modules whose results exceed their dtype's range, where that matters."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.results.dtypes import BFLOAT16, FLOAT16, FLOAT32
from precisionbench.results.evidence import LayerError, Overflow

# Relative L2 error of an output from which a value out of range matters: a usual one, by dtype.
_USUAL_ERRORS = {FLOAT16: 5e-3, BFLOAT16: 3e-2, FLOAT32: 1e-4}
# Smaller outputs have a large relative error because they underflow: the smallest normal float16.
_SMALLEST_FLOAT16 = 6e-5
# The error of a layer is that of its overflow if it is this many times that of any layer before.
_JUMP = 10.0


def harmful_overflow(facts: Facts) -> Overflow | None:
    """The first operation whose overflow changes the output; None where there is none.

    Infinity is often harmless: softmax makes it 0, `where` does not take it, `tanh` makes it 1. It
    matters if the output is another one with the largest finite number in its place, or if the
    error of its layer is much larger than that of the layers before.

    Args:
        facts: of the row.
    """
    found = facts.evidence.overflows
    infinite = next((one.path for one in facts.evidence.errors if one.nonfinite_count), None)
    if infinite is not None:
        within = (one for one in found if f"{one.layer}.".startswith(f"{infinite}."))
        return next(within, next(iter(found), None))
    return next((one for one in found if _is_harmful(one, facts)), None)


def _is_harmful(overflow: Overflow, facts: Facts) -> bool:
    usual = _USUAL_ERRORS.get(overflow.dtype, _USUAL_ERRORS[BFLOAT16])
    if (overflow.output_change or 0.0) > usual:
        return True
    errors = facts.evidence.errors
    own = next((error for error in errors if error.path == overflow.layer), None)
    if own is None or own.relative_l2 is None or own.reference_max_abs < _SMALLEST_FLOAT16:
        return False
    before = max((_error(one) for one in errors[: errors.index(own)]), default=0.0)
    return own.relative_l2 > max(usual, _JUMP * before)


def _error(layer: LayerError) -> float:
    return layer.relative_l2 or 0.0
