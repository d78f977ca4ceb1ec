"""Whether a row's output is near enough to what float64 gives."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Accuracy
from precisionbench.diagnosis.labels import label_of
from precisionbench.diagnosis.layers import error_growth, worth_float32
from precisionbench.results.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, TF32
from precisionbench.results.earlier_claims import claims_of

# Relative L2 error of a whole network's output that is usual for a dtype.
_BOUNDS = {FLOAT32: 1e-4, TF32: 2e-3, FLOAT16: 5e-3, BFLOAT16: 3e-2, INT8: 0.1}
# A model that magnifies float32's own rounding magnifies the others', too: so many times the
# larger unit of rounding over float32's (2**-24) is allowed as well.
_ROUNDING = {FLOAT32: 2.0**-24, TF32: 2.0**-11, FLOAT16: 2.0**-11, BFLOAT16: 2.0**-8, INT8: 2.0**-7}
_FACTOR = 2.0
# No output is near enough beyond this, and a float32 error beyond that is none of rounding.
_MOST, _MOST_OF_FLOAT32 = 0.3, 1e-3
_UNSTEADY = "the last call's output is not the first's"


def precision_of(facts: Facts, base: Facts | None) -> Accuracy:
    """Judge a row's output.

    Args:
        facts: of the row.
        base: of the reference row; None where it failed.
    """
    row, errors = facts.row, facts.evidence.errors
    output = next((error for error in errors if error.path == ""), None)
    first_bad = next((error.path for error in errors if error.nonfinite_count), "")
    claim = claims_of(row).dtype
    bound = bound_for(claim, None if base is facts else _own_error(base))

    def judged(verdict: str, reason: str, layer: str = "") -> Accuracy:
        error = output.relative_l2 if output else None
        top1 = row.agreement.top1 if row.agreement else None
        keep, keep_s = worth_float32(base, facts) if verdict == "inaccurate" and base else ((), 0.0)
        return Accuracy(row.backend, verdict, error, bound, layer, reason, keep, keep_s, top1)

    if any(_UNSTEADY in warning for warning in row.warnings):
        return judged("unstable", "it does not even agree with itself from call to call")
    if (row.agreement and row.agreement.nonfinite_count) or (output and output.nonfinite_count):
        where = f", first in {first_bad}" if first_bad else ""
        return judged("non_finite", f"its output is infinite or NaN{where}", first_bad)
    if output is None:
        return judged("unknown", _not_compared(facts, is_reference=base is facts))
    if output.relative_l2 is None:
        return judged("unknown", "its output is zero everywhere in float64; use trained weights")
    if bound is None:
        return judged("unknown", "no precision is claimed that a bound would belong to")
    if output.relative_l2 <= bound:
        return judged("fine", f"its error {output.relative_l2:.1e} is within {bound:.1e}")
    layer = _worst_layer(facts)
    where = f"; it grows most in {layer}" if layer else ""
    return judged(
        "inaccurate", f"its error {output.relative_l2:.1e} is above {bound:.1e}{where}", layer
    )


def _not_compared(facts: Facts, *, is_reference: bool) -> str:
    why = facts.evidence.unknown.get("errors", "it was not compared with float64")
    agreement = facts.row.agreement
    if agreement is not None and agreement.relative_l2 is not None and not is_reference:
        return f"its error is {agreement.relative_l2:.1e} against the reference; {why}"
    return why


def _own_error(base: Facts | None) -> float | None:
    """float32's own error, where the reference is that."""
    if base is None or claims_of(base.row).dtype != FLOAT32:
        return None
    own = next((e.relative_l2 for e in base.evidence.errors if e.path == ""), None)
    trusted = own is not None and own <= _MOST_OF_FLOAT32 and label_of(base).verdict != "false"
    return own if trusted else None


def bound_for(claim: str, own_error: float | None) -> float | None:
    """The error allowed: what is usual for the dtype, or what the model itself magnifies.

    Args:
        claim: the precision.
        own_error: of the same model in float32; None where not known.
    """
    usual = _BOUNDS.get(claim)
    if usual is None or own_error is None:
        return usual
    magnified = _FACTOR * own_error * _ROUNDING[claim] / _ROUNDING[FLOAT32]
    return max(usual, min(_MOST, magnified))


def _worst_layer(facts: Facts) -> str:
    """Where the error grows most from one layer to the next."""
    growth = error_growth(facts.evidence.errors)
    most, path = max(growth, key=lambda pair: pair[0], default=(0.0, ""))
    return path if most > 0 else ""
