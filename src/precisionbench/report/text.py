"""The table, as text for a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.row_labels import by_label
from precisionbench.report import rows
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.findings import brief
from precisionbench.report.headline import headline
from precisionbench.report.plain import (
    WIDTH,
    Column,
    item,
    paragraph,
    plain_text,
    styled,
    table,
    table_width,
    widen,
    with_blank_lines,
    with_lines_below,
)
from precisionbench.report.sweeps import sweep_sentences
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.spec_syntax import without_batch

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
_MAX_NOTES = 5  # below a table, where a command shows all of them
_MIN_ROWS_FOR_EVERY_ROW = 3  # a note on all rows of this many or more names none of them


def to_text(
    data: ComparisonData, width: int = WIDTH, *, wide: bool = False, all_notes: str = ""
) -> str:
    """The comparison as plain text.

    Args:
        data: the comparison.
        width: maximum number of columns; 40 or more.
        wide: show every column, even if names have little room.
        all_notes: the command that shows all notes; the text has the most important ones then.
    """
    return plain_text(lambda console: show(data, console, wide=wide, all_notes=all_notes), width)


def show(
    data: ComparisonData, console: Console, *, wide: bool = False, all_notes: str = ""
) -> None:
    """Write the comparison to a rich console.

    Args:
        data: the comparison.
        console: to write to.
        wide: as for `to_text`.
        all_notes: as for `to_text`.
    """
    widen(console)
    for part in _parts(data, console.width, wide, all_notes):
        console.print(part)


def _parts(data: ComparisonData, width: int, wide: bool, all_notes: str) -> list[RenderableType]:
    found = diagnosis_of(data)
    diagnosis = by_label(found)
    parts: list[RenderableType] = [
        paragraph(headline(data, diagnosis=found), width, "bold"),
        styled(),
        styled(rows.title(data)),
        styled(rows.versions(data), style="dim"),
    ]
    if disturbed := disturbance_text(data):
        parts += [styled(), item("Disturbed", disturbed, width)]
    wrong = [("", label.sentence) for label in diagnosis.labels if label.is_wrong]
    parts += _section("False labels", wrong, width, "bold red")
    if data.results:
        legend = styled(rows.legend(data), style="dim")
        parts += [styled(), _table(data, width, wide), styled(), legend]
    parts += _section("Batch sizes", sweep_sentences(data), width)
    parts += _section("Findings", brief(diagnosis.findings), width)
    parts += _section("Notes", _notes(data, all_notes), width)
    parts += _section("Could not run", rows.failed(data), width)
    if unavailable := rows.unavailable(data):
        parts += [styled(), paragraph(unavailable, width)]
    return parts


def _notes(data: ComparisonData, all_notes: str) -> list[tuple[str, str]]:
    """The notes as (rows, sentence); with a command for all of them, the first few."""
    notes = [(_rows_text(names, data), sentence) for names, sentence in rows.notes(data)]
    left_out = len(notes) - _MAX_NOTES
    if not all_notes or left_out < 2:
        return notes
    return [*notes[:_MAX_NOTES], ("", f"{left_out} more notes: {all_notes}")]


def _section(
    title: str, items: Sequence[tuple[str, str]], width: int, style: str = "bold"
) -> list[RenderableType]:
    """A heading with (about, sentence) below it; nothing without any."""
    lines = [item(about, sentence, width) for about, sentence in items]
    return [styled(), styled(title, style=style), *lines] if lines else []


def _rows_text(names: list[str], data: ComparisonData) -> str:
    if len(names) >= _MIN_ROWS_FOR_EVERY_ROW and len(names) == len(data.results):
        return "every row"
    return ", ".join(names)


def _table(data: ComparisonData, width: int, wide: bool) -> RenderableType:
    """The table, with as many further columns as there is room for.

    Without room for verdicts, those other than faster and slower are below the names of the rows.
    """
    columns, groups, starts = _columns(data), {_ALWAYS}, _starts(data.results)
    for group in (_INTERVAL, _VERDICT, _MORE):
        if wide or table_width(*_content(columns, {*groups, group}, starts)) <= width:
            groups.add(group)
    return table(*_content(columns, groups, starts), width)


def _starts(results: Sequence[BackendResult]) -> list[int]:
    """The rows that a new model or, of several batch sizes, a new backend begins with."""
    sizes = {row.batch_size for row in results}
    keys = [without_batch(row.backend) if len(sizes) > 1 else row.model for row in results]
    several = len(results) > len(set(keys)) > 1
    return [i for i in range(1, len(keys)) if several and keys[i] != keys[i - 1]]


@attrs.frozen
class _Cells:
    """A column with its cells; `group` says when it is shown."""

    column: Column
    texts: Sequence[str]
    group: int


# Groups of columns, in the order in which they are added.
_ALWAYS, _INTERVAL, _VERDICT, _MORE = range(4)


def _columns(data: ComparisonData) -> list[_Cells]:
    found = speedups(data)
    pairs = [(row, found.get(row.backend)) for row in data.results]
    texts = [rows.row_text(data, row, one) for row, one in pairs]
    verdicts = [rows.reservation(data, row, one) for row, one in pairs]
    heading, errors = ("call", _MORE) if rows.has_calls(data) else ("backend", _ALWAYS)
    columns = [
        _Cells(Column(heading, right=False, breaks=True), [t.backend for t in texts], _ALWAYS),
        _Cells(Column("latency"), [t.latency for t in texts], _ALWAYS),
        _Cells(Column("±"), [t.width.lstrip("±") for t in texts], _ALWAYS),
        _Cells(Column(rows.throughput_unit(data)), [t.throughput for t in texts], _ALWAYS),
        _Cells(Column("speed-up"), [t.speedup for t in texts], _ALWAYS),
        _Cells(Column("95 % CI"), [rows.interval_text(data, *pair) for pair in pairs], _INTERVAL),
        _Cells(Column("verdict", right=False), verdicts, _VERDICT),
        _Cells(Column("rel. error"), [t.agreement for t in texts], errors),
        _Cells(Column("peak memory"), [rows.memory_text(row) for row, _ in pairs], _MORE),
        _Cells(Column("energy"), [rows.energy_text(row) for row, _ in pairs], _MORE),
    ]
    return [one for one in columns if one.group == _ALWAYS or set(one.texts) - {"", "-"}]


def _content(
    columns: Sequence[_Cells], groups: Collection[int], starts: Sequence[int] = ()
) -> tuple[list[Column], list[Sequence[Text]]]:
    """The headings and the lines of a table with these groups; what is not known is a dash."""
    shown = [one for one in columns if one.group in groups]
    texts = [[text or "-" if one.group == _MORE else text for text in one.texts] for one in shown]
    lines: list[Sequence[Text]] = [[*map(styled, line)] for line in zip(*texts, strict=True)]
    found = [one.texts for one in columns if one.group == _VERDICT and _VERDICT not in groups]
    verdicts = found[0] if found else [""] * len(lines)
    ends = [0, *starts, len(lines)]
    parts = [
        with_lines_below(lines[start:end], verdicts[start:end])
        for start, end in itertools.pairwise(ends)
    ]
    return [one.column for one in shown], with_blank_lines(parts)
