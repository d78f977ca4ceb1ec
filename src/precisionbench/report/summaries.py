"""Results in a few lines, as a prompt and a notebook show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from precisionbench._internal.interval_text import ends, span
from precisionbench.analysis.run_diff import Difference
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.findings import DiagnosisData, Finding, FindingStatus
from precisionbench.diagnosis.gap.ledger import Factor, GapData
from precisionbench.diagnosis.row_labels import by_label
from precisionbench.report import rows
from precisionbench.report.findings import STATUS_WORDS, shown_gain
from precisionbench.report.headline import headline
from precisionbench.report.html.escaping import shortened
from precisionbench.report.ledger import sentences
from precisionbench.results import ComparisonData, Speedup
from precisionbench.statistics import Interval

_INDENT = "  "
_MAX_NAME = 60  # columns
_ORDER = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED, FindingStatus.RULED_OUT)


def of_comparison(data: ComparisonData) -> Iterator[str]:
    """The workload, the result in a sentence, and a line for each row.

    Args:
        data: the comparison.
    """
    found = speedups(data)
    texts = [rows.row_text(data, row, found.get(row.backend)) for row in data.results]
    yield rows.title(data)
    yield headline(data, found)
    cells = [(t.backend, t.latency, t.width, t.speedup) for t in texts]
    yield from _aligned(cells)
    if data.failures:
        yield f"{_INDENT}not measured: {', '.join(failure.backend for failure in data.failures)}"


def _aligned(lines: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Cells in columns: names on the left, figures on the right."""
    widths = [min(_MAX_NAME, max(map(len, column))) for column in zip(*lines, strict=True)]
    for name, *figures in lines:
        columns = (text.rjust(width) for text, width in zip(figures, widths[1:], strict=True))
        yield _INDENT + _INDENT.join([shortened(name, _MAX_NAME).ljust(widths[0]), *columns])


def of_diagnosis(diagnosis: DiagnosisData) -> Iterator[str]:
    """How many findings there are, labels that are wrong, each finding, and the notes.

    Args:
        diagnosis: of a comparison.
    """
    diagnosis = by_label(diagnosis)
    counts = [(status, _count(diagnosis.findings, status)) for status in _ORDER]
    words = ", ".join(f"{n} {STATUS_WORDS[status]}" for status, n in counts if n)
    yield f"Diagnosis of {len(diagnosis.labels)} rows: {words or 'no findings'}"
    yield from (f"{_INDENT}{label.sentence}" for label in diagnosis.labels if label.is_wrong)
    for status in _ORDER:
        yield from (_finding(one) for one in diagnosis.findings if one.status is status)
    yield from (f"{_INDENT}note: {note}" for note in diagnosis.notes)


def _count(findings: Sequence[Finding], status: FindingStatus) -> int:
    return sum(one.status is status for one in findings)


def _finding(finding: Finding) -> str:
    gain = _gain(finding)
    return f"{_INDENT}{STATUS_WORDS[finding.status]}{gain}: {finding.title} in {finding.row}"


def _gain(finding: Finding) -> str:
    factor = shown_gain(finding)
    if factor is None:
        return ""
    if finding.status is FindingStatus.SUSPECTED:
        return f", up to {ends(factor)[1]}x"
    return f", {_times(factor)}"


def _times(factor: Interval) -> str:
    return f"{factor.value:.3g}x ({span(factor)})"


def of_gap(gap: GapData) -> Iterator[str]:
    """Both rates, and a line for each factor.

    Args:
        gap: the ledger.
    """
    yield sentences(gap)[0]
    yield from of_factors(gap.factors)


def of_factors(factors: Sequence[Factor]) -> Iterator[str]:
    """A line for each factor.

    Args:
        factors: of a gap or a ladder.
    """
    for one in factors:
        yield f"{_INDENT}{_times(one.factor)} {one.kind.value}: {one.name}"


def of_difference(found: Difference) -> Iterator[str]:
    """Both runs, and a line for each row.

    Args:
        found: of two runs.
    """
    counts = f"{len(found.rows)} rows in both runs, {len(found.slower)} slower"
    failing = f", {len(found.broken)} failing now" if found.broken else ""
    yield f"{found.old_created} to {found.new_created}: {counts}{failing}"
    if found.mismatches:
        yield f"{_INDENT}not comparable: {'; '.join(map(str, found.mismatches))}"
    yield from (f"{_INDENT}{row.backend}: {speedup_text(row.speedup)}" for row in found.rows)


def speedup_text(found: Speedup) -> str:
    """A speed-up with its interval and verdict, such as `2.13x (2.05 to 2.21), faster`.

    Args:
        found: of a row.
    """
    value, low, high = rows.ratio_texts(found)
    return f"{value}x ({low} to {high}), {rows.verdict_words(found)}"
