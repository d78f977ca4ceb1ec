"""A diagnosis as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from precisionbench import safe_text
from precisionbench._internal.interval_text import ends, span
from precisionbench.diagnosis.findings import (
    DiagnosisData,
    Finding,
    FindingStatus,
    LayerPair,
    Number,
)
from precisionbench.report.formatting import scaled, time_text
from precisionbench.report.plain import WIDTH

_MAX_LAYERS = 5
_INDENT = "  "
STATUS_WORDS = {
    FindingStatus.CONFIRMED: "confirmed",
    FindingStatus.SUSPECTED: "suspected",
    FindingStatus.RULED_OUT: "ruled out",
}


def to_text(diagnosis: DiagnosisData, width: int = WIDTH) -> str:
    """The diagnosis as text: labels first, then findings, layers and answers.

    Args:
        diagnosis: to show.
        width: maximum number of columns.
    """
    return "\n".join(_wrapped(_lines(diagnosis), width))


def _wrapped(lines: Iterable[str], width: int) -> Iterator[str]:
    """Wrap indented lines; their continuation lines are indented further."""
    for line in map(safe_text.line, lines):
        if line.startswith(_INDENT):
            yield from textwrap.wrap(line, width, subsequent_indent=2 * _INDENT)
        else:
            yield line


def _lines(diagnosis: DiagnosisData) -> Iterator[str]:
    wrong = [label.sentence for label in diagnosis.labels if label.is_wrong]
    yield from _section("Labels that do not hold", wrong)
    yield from _section("Findings", map(_finding, diagnosis.findings))
    for row in dict.fromkeys(pair.row for pair in diagnosis.layers):
        pairs = [pair for pair in diagnosis.layers if pair.row == row][:_MAX_LAYERS]
        yield from _section(f"Layers that take longest in {row}", map(_layer, pairs))
    yield from _section("Ten questions", (f"{a.question} {a.answer}" for a in diagnosis.answers))
    yield from _section("Notes", diagnosis.notes)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield title
        yield from (f"{_INDENT}{line}" for line in found)
        yield ""


def _finding(finding: Finding) -> str:
    figures = ", ".join(f"{number.name} {figure(number)}" for number in finding.evidence)
    gain = ""
    if finding.factor is not None and finding.factor.value > 1.005:
        proved = finding.status is not FindingStatus.SUSPECTED
        gain = (
            f" [{finding.factor.value:.3g}x without it, {span(finding.factor)}]"
            if proved
            else f" [up to {ends(finding.factor)[1]}x]"
        )
    experiment = f" by {finding.experiment}" if finding.experiment else ""
    reason = f" ({finding.reason})" if finding.reason else ""
    what = f"{finding.row}: {finding.title}, {STATUS_WORDS[finding.status]}{experiment}{gain}"
    return f"{what}: {figures}{reason}. Remedy: {finding.remedy}. See {finding.link}"


def figure(number: Number) -> str:
    """A number with its unit, in a short form."""
    if number.unit == "share":
        return f"{number.value:.0%}"
    if number.unit == "s":
        return time_text(number.value)
    if number.unit == "ratio":
        return f"{number.value:.3g}x"
    if number.unit == "byte":
        return scaled(number.value, "B")
    if number.unit == "FLOP/s":
        return scaled(number.value, "FLOP/s")
    return f"{number.value:,.6g}"


def _layer(pair: LayerPair) -> str:
    error = f", error {pair.error:.1e}" if pair.error is not None else ""
    obstacle = f", {pair.obstacles[0]}" if pair.obstacles else ""
    return (
        f"{pair.path or '(the model)'} {pair.kind}: {time_text(pair.time_s)}, in the reference "
        f"{time_text(pair.reference_s)} ({pair.ratio:.2g}x){error}{obstacle}"
    )
