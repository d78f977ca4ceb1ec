"""A diagnosis as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from precisionbench import safe_text
from precisionbench.diagnosis.findings import UNSOUND_OUTPUTS, Answer, DiagnosisData, LayerPair
from precisionbench.diagnosis.row_labels import by_label
from precisionbench.report.findings import paragraphs
from precisionbench.report.formatting import time_text
from precisionbench.report.plain import WIDTH

_MAX_LAYERS = 5
_INDENT = "  "
# Names, addresses and paths are copied, so they are not broken at hyphens.
_wrap = partial(textwrap.wrap, break_on_hyphens=False, break_long_words=False)


def to_text(diagnosis: DiagnosisData, width: int = WIDTH, opening: str = "") -> str:
    """The diagnosis as text: labels first, then findings, layers and answers.

    Args:
        diagnosis: to show.
        width: maximum number of columns.
        opening: a sentence before it.
    """
    before = [*_item(opening, width, "", ""), ""] if opening else []
    return "\n".join([*before, *_lines(by_label(diagnosis), width)])


def _lines(diagnosis: DiagnosisData, width: int) -> Iterator[str]:
    wrong = [label.sentence for label in diagnosis.labels if label.is_wrong]
    yield from _section("False labels", wrong, width)
    yield from _findings(diagnosis, width)
    yield from _layers(diagnosis, width)
    yield from _answers(diagnosis.answers, width)
    yield from _section("Notes", diagnosis.notes, width)


def _section(title: str, lines: Iterable[str], width: int) -> Iterator[str]:
    found = list(lines)
    if found:
        yield from _wrap(safe_text.line(title), width)
        for line in found:
            yield from _item(line, width)
        yield ""


def _item(line: str, width: int, indent: str = _INDENT, more: str = _INDENT) -> list[str]:
    """A sentence whose later lines are indented further."""
    text = safe_text.line(line)
    return _wrap(text, width, initial_indent=indent, subsequent_indent=indent + more)


def _findings(diagnosis: DiagnosisData, width: int) -> Iterator[str]:
    for place, (title, *lines) in enumerate(paragraphs(diagnosis.findings)):
        if not place:
            yield "Findings"
        yield from _item(title, width)
        for line in lines:
            yield from _item(line, width, 2 * _INDENT)
        yield ""


def _layers(diagnosis: DiagnosisData, width: int) -> Iterator[str]:
    """The slowest layers of the row with the least time in layers, of those that are sound."""
    unsound = {label.row for label in diagnosis.labels if label.is_wrong}
    unsound |= {one.row for one in diagnosis.precisions if one.verdict in UNSOUND_OUTPUTS}
    times_s: dict[str, float] = {}
    for pair in diagnosis.layers:
        times_s[pair.row] = times_s.get(pair.row, 0.0) + pair.time_s
    if times_s:
        row = min(times_s, key=lambda name: (name in unsound, times_s[name]))
        pairs = [pair for pair in diagnosis.layers if pair.row == row][:_MAX_LAYERS]
        others = " (the HTML report has those of all rows)" if len(times_s) > 1 else ""
        yield from _section(f"Slowest layers in {row}{others}", map(_layer, pairs), width)


def _answers(answers: Sequence[Answer], width: int) -> Iterator[str]:
    """The answers as a table: a line each, if it is not too long."""
    if not answers:
        return
    yield "Ten questions"
    topics = [safe_text.line(answer.topic) for answer in answers]
    column = min(max(map(len, topics)), width // 2) + len(_INDENT)
    for topic, answer in zip(topics, answers, strict=True):
        yield from _wrap(
            safe_text.line(answer.short),
            width,
            initial_indent=_INDENT + topic.ljust(column),
            subsequent_indent=" " * (len(_INDENT) + column),
        )
    yield ""


def _layer(pair: LayerPair) -> str:
    error = f", error {pair.error:.1e}" if pair.error is not None else ""
    obstacle = f", {pair.obstacles[0]}" if pair.obstacles else ""
    return (
        f"{pair.path or '(the model)'} {pair.kind}: {time_text(pair.time_s)}, in the reference "
        f"{time_text(pair.reference_s)} ({pair.ratio:.2g}x){error}{obstacle}"
    )
