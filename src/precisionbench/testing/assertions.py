"""Assertions on comparisons for tests; their messages have the reason of the verdict."""

from __future__ import annotations

from precisionbench import safe_text
from precisionbench.analysis.run_diff import Difference, RowChange
from precisionbench.comparison import Comparison
from precisionbench.report.rows import ratio_texts
from precisionbench.testing.thresholds import ErrorThreshold, SpeedupThreshold, verdict_text


def assert_speedup(comparison: Comparison, row: str, at_least: float) -> None:
    """Assert that a row has a minimum speed-up over the reference.

    The lower end of the interval is tested, so that a lucky run does not pass. Rows measured
    inline or in too few rounds do not pass either, because their intervals are not reliable.

    Args:
        comparison: as `compare` or the fixture `precision_benchmark` returns it.
        row: its spec.
        at_least: minimum of reference latency / this row's latency.

    Raises:
        AssertionError: the speed-up is lower or inconclusive; the message has the value, its
            interval, the verdict with its reason, and the remedy.
        RowNotFoundError: the comparison has no such row.
        SpecError: the row is the reference, or the bound is not a number above 0.
    """
    __tracebackhide__ = True
    _fail_if(SpeedupThreshold(row, at_least).missed_by(comparison))


def assert_agrees(comparison: Comparison, row: str, relative_l2: float) -> None:
    """Assert that a row's output matches the reference's, and is finite wherever that is.

    Args:
        comparison: as `compare` or the fixture `precision_benchmark` returns it.
        row: its spec.
        relative_l2: the largest ||out - ref|| / ||ref|| that is allowed, over all output tensors.

    Raises:
        AssertionError: it does not, or the two cannot be compared; the message has the reason.
        RowNotFoundError: the comparison has no such row.
        SpecError: the row is the reference, or the bound is not a number above 0.
    """
    __tracebackhide__ = True
    _fail_if(ErrorThreshold(row, relative_l2).missed_by(comparison))


def assert_not_slower(comparison: Comparison, old: Comparison, force: bool = False) -> Difference:
    """Assert that no row became slower than in an older run; see `Comparison.diff`.

    Inconclusive differences pass. A row that was measured before and fails now does not.

    Args:
        comparison: the new run.
        old: the run to compare with.
        force: compare them although their conditions differ.

    Returns:
        The differences of all rows.

    Raises:
        AssertionError: a row is slower, by itself or over the reference, or fails now, or the two
            have no row in common.
        IncomparableError: they differ in conditions that change times; the reason names each.
    """
    __tracebackhide__ = True
    found = comparison.diff(old, force)
    _fail_if(_worse(found))
    return found


def change_text(row: RowChange) -> str:
    """A row's change as text, such as `half 0.950x (0.940 to 0.961), slower: ...`.

    Args:
        row: as `Comparison.diff` returns it.
    """
    value, low, high = ratio_texts(row.speedup)
    verdict = verdict_text(row.speedup.verdict, row.speedup.reason)
    return f"{row.backend} {value}x ({low} to {high}), {verdict}{_relative(row)}"


def _relative(row: RowChange) -> str:
    if row.relative is None:
        return ""
    value, low, high = ratio_texts(row.relative)
    verdict = verdict_text(row.relative.verdict, row.relative.reason)
    return f", relative to the reference {value}x ({low} to {high}), {verdict}"


def _worse(found: Difference) -> str:
    """Why a newer run does not pass; empty where it does."""
    if found.slower:
        rows = "; ".join(map(change_text, found.slower))
        return (
            f"slower than on {found.old_created}: {rows}; measure again, check what "
            "has changed since, or accept it with a new baseline"
        )
    if found.broken:
        rows = ", ".join(found.broken)
        return f"measured on {found.old_created} and failing now: {rows}; " + "; ".join(found.notes)
    return "" if found.rows else "no row was measured in both runs; compare the same backends"


def _fail_if(missed: str) -> None:
    __tracebackhide__ = True
    if missed:
        raise AssertionError(safe_text.line(missed))
