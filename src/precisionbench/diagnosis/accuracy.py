"""Whether a row's output matches float64 within tolerance."""

from __future__ import annotations

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Accuracy
from precisionbench.diagnosis.labels import precision_label_of
from precisionbench.diagnosis.layers import error_growth, layers_to_keep_in_float32
from precisionbench.diagnosis.overflows import harmful_overflow
from precisionbench.diagnosis.remedies import for_inaccurate, for_overflow, keeps_layers
from precisionbench.results.dtypes import BFLOAT16, FLOAT8, FLOAT16, FLOAT32, INT4, INT8, TF32
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.evidence import LayerError

# Usual relative L2 error of a network's output, by dtype.
_USUAL_ERRORS = {
    FLOAT32: 1e-4,
    TF32: 2e-3,
    FLOAT16: 5e-3,
    BFLOAT16: 3e-2,
    INT8: 0.1,
    FLOAT8: 0.1,
    INT4: 0.2,
}
# Unit roundoff. A model that amplifies the rounding of float32 amplifies that of other dtypes as
# well, so an error in proportion to the unit roundoff is also within tolerance.
_ROUNDOFF = {
    FLOAT32: 2.0**-24,
    TF32: 2.0**-11,
    FLOAT16: 2.0**-11,
    BFLOAT16: 2.0**-8,
    INT8: 2.0**-7,
    FLOAT8: 2.0**-4,
    INT4: 2.0**-4,
}
_AMPLIFICATION_MARGIN = 2.0
# Upper limit of any tolerance.
_MAX_BOUND = 0.3
# A float32 error above this has causes other than rounding.
_MAX_FLOAT32_ERROR = 1e-3
# Layers in float32 can help if the error of float32 is less than this share of the row's.
_MUCH_LESS = 0.5
_NOT_FLOAT32 = (
    "this row did not run in float32 only, and the error is that of the other dtypes: remove the "
    "casts from the model"
)
_NOTHING_TO_COMPARE = (
    "the float64 output is zero, infinite or NaN everywhere; use trained weights and finite inputs"
)
_OUTSIDE_OF_LAYERS = "compute in float32 what the model's forward computes outside of its layers"
_OWN_FORWARD = "the model's own forward"


def accuracy_of(facts: Facts, base: Facts | None) -> Accuracy:
    """Whether a row's output matches float64 within tolerance.

    Args:
        facts: facts of the row.
        base: facts of the reference row; None where it failed.
    """
    bound = error_bound(
        claims_of(facts.row).coarsest_dtype, None if base is facts else _own_error(base)
    )
    verdict = _verdict(facts, bound, is_reference=base is facts)
    advice = _advice(verdict, facts, base) if verdict.name == "inaccurate" else _Advice()
    return Accuracy(
        row=facts.row.backend,
        verdict=verdict.name,
        error=_output_error(facts),
        bound=bound,
        layer=verdict.layer,
        reason=verdict.reason,
        keep=advice.keep,
        keep_s=advice.keep_s,
        top1=facts.row.agreement.top1 if facts.row.agreement else None,
        remedy=advice.remedy,
    )


@attrs.frozen
class _Advice:
    """What to do about an inaccurate output; the fields are those of `Accuracy`."""

    remedy: str = ""
    keep: tuple[str, ...] = ()
    keep_s: float = 0.0


def _advice(verdict: _Verdict, facts: Facts, base: Facts | None) -> _Advice:
    overflow = harmful_overflow(facts)
    if overflow is not None:
        largest = _magnitude(facts, overflow.layer)
        remedy = for_overflow(facts.row, overflow.layer, overflow.dtype, largest)
        keeps = bool(overflow.layer) and f"keep {overflow.layer} in float32" in remedy
        return _Advice(remedy, (overflow.layer,) if keeps else ())
    if claims_of(facts.row).dtype == FLOAT32 and precision_label_of(facts).is_wrong:
        return _Advice(_NOT_FLOAT32)
    if base is None or base is facts or not _helps(facts, base):
        layers = (verdict.layer,) if verdict.layer else ()
        accurate = base is None or _helps(facts, base)
        return _Advice(for_inaccurate(facts.row, layers, base_is_accurate=accurate))
    keep, keep_s = layers_to_keep_in_float32(base, facts)
    remedy = for_inaccurate(facts.row, keep, base_is_accurate=True)
    if not remedy and _worst_layer(facts) == "":
        remedy = _OUTSIDE_OF_LAYERS
    return _Advice(remedy, keep, keep_s) if keeps_layers(facts.row) else _Advice(remedy)


def _helps(facts: Facts, base: Facts) -> bool:
    """Whether float32 would be more accurate, as far as the reference row shows."""
    if claims_of(base.row).dtype != FLOAT32 or precision_label_of(base).is_wrong:
        return True
    own, error = _output_error(base), _output_error(facts)
    return own is None or error is None or own < _MUCH_LESS * error


def _magnitude(facts: Facts, path: str) -> float | None:
    """The largest magnitude of a layer's output in float64."""
    errors = facts.evidence.errors
    return next((one.reference_max_abs for one in errors if one.path == path), None)


@attrs.frozen
class _Verdict:
    """A verdict on a row's output.

    Attributes:
        name: as in `Accuracy.verdict`.
        reason: the reason, in a sentence.
        layer: the layer that it refers to; empty without one.
    """

    name: str
    reason: str
    layer: str = ""


def _verdict(facts: Facts, bound: float | None, *, is_reference: bool) -> _Verdict:
    if facts.is_unsteady:
        return _Verdict("unstable", "the output changes from call to call")
    if _is_nonfinite(facts):
        return _nonfinite(facts)
    if _output(facts) is None:
        return _Verdict("unknown", _not_compared(facts, is_reference=is_reference))
    error = _output_error(facts)
    if error is None:
        return _Verdict("unknown", _NOTHING_TO_COMPARE)
    return _within_bound(facts, error, bound)


def _within_bound(facts: Facts, error: float, bound: float | None) -> _Verdict:
    if bound is None:
        claim = claims_of(facts.row).dtype
        why = f"no tolerance is known for {claim}" if claim else "the row claims no precision"
        return _Verdict("unknown", why)
    if error <= bound:
        return _Verdict("fine", f"error {error:.1e} is within the tolerance {bound:.1e}")
    overflow = harmful_overflow(facts)
    if overflow is not None:
        place = overflow.layer or _OWN_FORWARD
        reason = f"values overflow in {place} ({overflow.operation})"
        above = f"error {error:.1e} is above the tolerance {bound:.1e}; {reason}"
        return _Verdict("inaccurate", above, overflow.layer)
    layer = _worst_layer(facts)
    where = f"; it grows most in {layer or _OWN_FORWARD}" if layer is not None else ""
    return _Verdict(
        "inaccurate", f"error {error:.1e} is above the tolerance {bound:.1e}{where}", layer or ""
    )


def _output(facts: Facts) -> LayerError | None:
    """The error of the model's output; None where it was not compared with float64."""
    return next((error for error in facts.evidence.errors if error.path == ""), None)


def _output_error(facts: Facts) -> float | None:
    output = _output(facts)
    return output.relative_l2 if output else None


def _is_nonfinite(facts: Facts) -> bool:
    agreement, output = facts.row.agreement, _output(facts)
    return bool((agreement and agreement.nonfinite_count) or (output and output.nonfinite_count))


def _nonfinite(facts: Facts) -> _Verdict:
    errors = facts.evidence.errors
    first = next((error.path for error in errors if error.nonfinite_count), "")
    where = f", first in {first}" if first else ""
    return _Verdict("non_finite", f"the output is infinite or NaN{where}", first)


def _not_compared(facts: Facts, *, is_reference: bool) -> str:
    why = facts.evidence.unknown.get("errors", "not compared with float64")
    agreement = facts.row.agreement
    if agreement is not None and agreement.relative_l2 is not None and not is_reference:
        return f"error {agreement.relative_l2:.1e} against the reference; {why}"
    return why


def _own_error(base: Facts | None) -> float | None:
    """The error of float32 itself; None where the reference is not a trusted float32 row."""
    if base is None or claims_of(base.row).dtype != FLOAT32:
        return None
    error = _output_error(base)
    is_trusted = error is not None and error <= _MAX_FLOAT32_ERROR
    return error if is_trusted and precision_label_of(base).verdict != "false" else None


def error_bound(dtype: str, own_error: float | None) -> float | None:
    """The tolerance: the usual error of a dtype, or what the model itself amplifies.

    Args:
        dtype: the precision that the row claims.
        own_error: error of the same model in float32; None where it is not known.
    """
    usual = _USUAL_ERRORS.get(dtype)
    if usual is None or own_error is None:
        return usual
    amplified = _AMPLIFICATION_MARGIN * own_error * _ROUNDOFF[dtype] / _ROUNDOFF[FLOAT32]
    return max(usual, min(_MAX_BOUND, amplified))


def _worst_layer(facts: Facts) -> str | None:
    """The layer in which the error grows most; empty for the model's own forward, None if unknown.

    The model's own error grows from the largest of its layers, since forward can use any of them.
    """
    most, path = max(
        error_growth(facts.evidence.errors), key=lambda pair: pair[0], default=(0.0, "")
    )
    if most <= 0:
        return None
    inside = max(e.relative_l2 or 0.0 for e in facts.evidence.errors if e.path)
    return "" if (_output_error(facts) or 0.0) - inside > most else path
