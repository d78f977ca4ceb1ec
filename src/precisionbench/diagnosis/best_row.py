"""The fastest row whose output is within a tolerance."""

from __future__ import annotations

import math
from numbers import Real

import attrs

from precisionbench.analysis.speedups import per_item_ratio, speedups
from precisionbench.diagnosis.accuracy import accuracy_of, error_bound
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.gap.measured import has_finite_output, rate_of
from precisionbench.display import Shown
from precisionbench.errors import RowNotFoundError, SpecError
from precisionbench.results import BackendResult, ComparisonData, Speedup
from precisionbench.results.earlier_claims import claims_of


@attrs.frozen(repr=False)
class BestRow(Shown):
    """The fastest row whose output is within a tolerance.

    Attributes:
        backend: name of the row.
        speedup: its speed-up over the reference; None where the reference failed.
        error: relative L2 error of its output against the reference's; 0 for the reference, None
            where it is not known.
        ties: other rows within tolerance whose difference from it is inconclusive: the 95 % CI of
            the ratio of the two rows includes 1. Each CI is 95 % by itself, not simultaneous.
        left_out: the rows that are not within tolerance, each with the reason.
    """

    backend: str
    speedup: Speedup | None
    error: float | None
    ties: tuple[str, ...]
    left_out: tuple[str, ...]


def best_row(data: ComparisonData, within: float | None) -> BestRow:
    """The fastest row whose output is within a tolerance.

    Args:
        data: the comparison.
        within: maximum relative L2 error against the reference's output; None for the tolerance
            of each row's own precision.

    Raises:
        SpecError: `within` is not a number of 0 or more.
        RowNotFoundError: no row is within tolerance.
    """
    _check(within)
    facts = facts_of_rows(data)
    reasons = {
        row.backend: _why_not(facts[row.backend], facts.get(data.reference_of(row.backend)), within)
        for row in data.results
    }
    left_out = tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        raise RowNotFoundError(
            f"no row is within tolerance ({'; '.join(left_out) or 'none was measured'})",
            "give a larger within",
        )
    best = max(names, key=lambda name: rate_of(data, name))
    others = (name for name in names if name != best)
    ties = tuple(name for name in others if not per_item_ratio(data, best, name).excludes_1)
    row = next(row for row in data.results if row.backend == best)
    error = _error(row, is_reference=data.is_reference(best))
    return BestRow(best, speedups(data).get(best), error, ties, left_out)


def _check(within: object) -> None:
    is_number = isinstance(within, Real) and not isinstance(within, bool)
    if within is not None and not (is_number and 0 <= float(within) < math.inf):  # type: ignore[arg-type]
        raise SpecError(
            f"within is {within!r}", "give the largest acceptable relative L2 error, such as 1e-2"
        )


def _error(row: BackendResult, *, is_reference: bool) -> float | None:
    if is_reference:
        return 0.0
    return row.agreement.relative_l2 if row.agreement else None


def _why_not(facts: Facts, base: Facts | None, within: float | None) -> str:
    """Why a row's output is not within tolerance; empty where it is."""
    if not has_finite_output(facts.row):
        return "its output is infinite or NaN where the reference's is finite"
    error = _error(facts.row, is_reference=facts is base)
    if within is None:
        found = accuracy_of(facts, base)
        if found.verdict != "unknown":
            return "" if found.verdict == "fine" else found.reason
        within = (
            math.inf if facts is base else error_bound(claims_of(facts.row).coarsest_dtype, None)
        )
        if within is None:
            return "it claims no precision with a known tolerance; give within"
    if error is None:
        return "its error against the reference is not known"
    return "" if error <= within else f"its error {error:.1e} is above the tolerance {within:.1e}"
