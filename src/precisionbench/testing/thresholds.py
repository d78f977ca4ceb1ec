"""Thresholds such as `half>=1.5`: their syntax, and whether a comparison meets them.

A speed-up is tested on the lower end of its interval, so that a lucky run does not pass.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from precisionbench._internal.numbers import is_number
from precisionbench.analysis.reasons import NO_VERDICTS, reason_text, why
from precisionbench.analysis.speedups import is_valid
from precisionbench.comparison import Comparison, as_comparison
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.labels import label_of
from precisionbench.errors import (
    PrecisionBenchError,
    RowNotFoundError,
    SpecError,
    did_you_mean,
)
from precisionbench.report.formatting import scientific
from precisionbench.report.rows import ratio_texts
from precisionbench.results import (
    Agreement,
    BackendFailure,
    BackendResult,
    Speedup,
    Verdict,
)
from precisionbench.results.json_values import Json
from precisionbench.spec_syntax import same_row, split_spec

_MEASURE_LONGER = "measure longer (a larger budget, more replicas), or lower the threshold"
_SEE_DIAGNOSIS = "diagnose the comparison to find what limits it (pb.explain, or --explain)"
_SEE_LAYERS = "diagnose the comparison to find the layer with the error (pb.explain, or --explain)"


@attrs.frozen
class _RowThreshold(abc.ABC):
    row: str

    def missed_by(self, comparison: Comparison) -> str:
        """Why a comparison does not meet it, in a sentence; empty if it does.

        Args:
            comparison: as measured.

        Raises:
            RowNotFoundError: the comparison has no such row.
            SpecError: the row is the reference.
        """
        comparison = as_comparison(comparison)
        _check_rows([self.row], rows_of(comparison), references_of(comparison))
        return self._why_missed(comparison)

    @abc.abstractmethod
    def _why_missed(self, comparison: Comparison) -> str: ...


@attrs.frozen
class SpeedupThreshold(_RowThreshold):
    """A minimum speed-up of a row over the reference.

    Attributes:
        row: its spec.
        at_least: minimum of the lower end of its speed-up's interval.
    """

    at_least: float

    def __attrs_post_init__(self) -> None:
        _check_bound(self.at_least, "a speed-up above 0, such as 1.5")

    def _why_missed(self, comparison: Comparison) -> str:
        try:
            row, found = comparison[self.row], comparison.speedup(self.row)
        except PrecisionBenchError as exc:
            return f"{self.row} has no speed-up: {exc}"
        return self._false_label(comparison, row) or self._missed(comparison, row, found)

    def _missed(self, comparison: Comparison, row: BackendResult, found: Speedup) -> str:
        data, name = comparison.data, row.backend
        says = _speedup_text(name, data.reference_of(name), found)
        if not is_valid(data, name):
            return f"{says}; inconclusive: {why(data, name, found)}"
        if found.low >= self.at_least:
            return ""
        verdict = verdict_text(found.verdict, found.reason)
        low = _text_below(found.low, self.at_least)
        return (
            f"{says}, {verdict}; the lower end, {low}, must reach {self.at_least:g}; "
            f"{self._remedy(comparison, name, found)}"
        )

    def _remedy(self, comparison: Comparison, name: str, found: Speedup) -> str:
        if found.reason in NO_VERDICTS:
            return why(comparison.data, name, found)
        return _MEASURE_LONGER if found.high >= self.at_least else _SEE_DIAGNOSIS

    def _false_label(self, comparison: Comparison, row: BackendResult) -> str:
        if not row.is_profiled:
            return ""
        label = label_of(facts_of(comparison.data, row))
        return label.sentence if label.verdict == "false" else ""


@attrs.frozen
class ErrorThreshold(_RowThreshold):
    """A maximum error of a row's output against the reference's.

    Attributes:
        row: its spec.
        at_most: maximum of the relative L2 error, ||out - ref|| / ||ref||.
    """

    at_most: float

    def __attrs_post_init__(self) -> None:
        _check_bound(self.at_most, "a relative error above 0, such as 0.01")

    def _why_missed(self, comparison: Comparison) -> str:
        try:
            row = comparison[self.row]
        except PrecisionBenchError as exc:
            return f"{self.row} has no output: {exc}"
        reference = comparison.data.reference_of(row.backend)
        if row.agreement is None:
            return f"{row.backend} cannot be compared with {reference}, which has no output"
        return self._missed(row.backend, reference, row.agreement)

    def _missed(self, name: str, reference: str, found: Agreement) -> str:
        if found.nonfinite_count:
            count = f"{found.nonfinite_count:,} elements"
            return (
                f"{name} or {reference} is infinite or NaN in {count} of the output; {_SEE_LAYERS}"
            )
        if found.caveats or found.relative_l2 is None:
            why = "; ".join(found.caveats) or "no error is known"
            return f"{name} cannot be compared with {reference}: {why}"
        if found.relative_l2 <= self.at_most:
            return ""
        error = scientific(found.relative_l2)
        return (
            f"{name} has a relative L2 error of {error} against {reference}; at most "
            f"{self.at_most:g} is allowed; {_SEE_LAYERS}"
        )


Threshold = SpeedupThreshold | ErrorThreshold


def parse(text: str) -> Threshold:
    """Parse a threshold.

    Args:
        text: `half>=1.5` or `half:memory_format=channels_last >= 1.2` for a speed-up over the
            reference; `half error<=0.01` for the relative L2 error against it.

    Raises:
        SpecError: it is neither.
    """
    speedup = _parts_around(text, ">=")
    if speedup is not None:
        return SpeedupThreshold(*speedup)
    error = _parts_around(text, "<=")
    if error is not None and error[0].endswith(" error"):
        return ErrorThreshold(error[0].removesuffix(" error").rstrip(), error[1])
    raise SpecError(
        f"the threshold {text!r} cannot be understood",
        "write 'half>=1.5' for a speed-up over the reference, or 'half error<=0.01' for the "
        "relative error",
    )


def check_rows(
    thresholds: Iterable[Threshold],
    rows: Sequence[tuple[str, Mapping[str, Json]]],
    references: Collection[str],
) -> None:
    """Refuse, before anything is measured, thresholds that could not be tested afterwards.

    Args:
        thresholds: as `parse` returns them.
        rows: name and options of each row that will be measured; its label is a second name.
        references: the rows that others are compared with; usually one.

    Raises:
        RowNotFoundError: a threshold's row is not one of them.
        SpecError: a threshold's row is a reference, or its name is not a spec.
    """
    _check_rows([threshold.row for threshold in thresholds], rows, references)


def rows_of(comparison: Comparison) -> list[tuple[str, Mapping[str, Json]]]:
    """Name and options of each row of a comparison, for `check_rows`.

    Args:
        comparison: as measured.
    """
    rows: list[BackendResult | BackendFailure] = [*comparison.results, *comparison.failures]
    return [(name, row.options) for row in rows for name in (row.backend, row.label) if name]


def references_of(comparison: Comparison) -> set[str]:
    """The rows of a comparison that others are compared with.

    Args:
        comparison: as measured.
    """
    return {name for name, _ in rows_of(comparison) if comparison.data.is_reference(name)}


def _check_rows(
    rows_wanted: Iterable[str],
    rows: Sequence[tuple[str, Mapping[str, Json]]],
    references: Collection[str],
) -> None:
    for query in rows_wanted:
        split_spec(query)  # says what is wrong with it
        named = [name for name, options in rows if same_row(query, name, options) or query == name]
        if not named:
            known = did_you_mean(query, [name for name, _ in rows])
            raise RowNotFoundError(f"the threshold's row {query!r} is not measured", known)
        if set(named) & set(references):
            raise SpecError(
                f"{query!r} is the reference, and is compared with itself",
                "set the threshold for another row",
            )


def _speedup_text(name: str, reference: str, found: Speedup) -> str:
    value, low, high = ratio_texts(found)
    return f"{name} measured {value}x {reference} ({low} to {high})"


def verdict_text(verdict: Verdict, reason: str) -> str:
    """A verdict with its reason as text.

    Args:
        verdict: of a speed-up.
        reason: its code, as `precisionbench.statistics.verdict_of` gives it.

    Returns:
        Such as `faster: the interval excludes 1`.
    """
    return f"{verdict.value.replace('_', ' ')}: {reason_text(reason)}"


def _text_below(value: float, bound: float) -> str:
    """A value with enough digits to show that it is below a bound."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if float(text) < bound)


def _parts_around(text: str, sign: str) -> tuple[str, float] | None:
    """The text before a sign, and the number after it."""
    row, _, number = text.rpartition(sign)
    try:
        return (row.strip(), float(number.strip().removesuffix("x"))) if row.strip() else None
    except ValueError:
        return None


def _check_bound(bound: float, wanted: str) -> None:
    if not is_number(bound, 0, math.inf) or bound == 0:
        raise SpecError(f"the threshold's bound is {bound!r}", f"give {wanted}")
