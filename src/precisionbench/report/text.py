"""The table, as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from precisionbench.analysis.speedups import speedups
from precisionbench.report import rows
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.plain import (
    WIDTH,
    Column,
    plain_text,
    readable,
    styled,
    styled_lines,
    table,
    table_width,
    widen,
)
from precisionbench.results import ComparisonData

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
_INDENT = 2
_MAX_TEXT_WIDTH = 100  # columns of prose
_MIN_ROWS_FOR_EVERY_ROW = 3  # a note on all rows of this many or more names none of them


def to_text(data: ComparisonData, width: int = WIDTH, *, wide: bool = False) -> str:
    """The comparison as plain text.

    Args:
        data: the comparison.
        width: maximum number of columns; 40 or more.
        wide: show every column, even if names have little room.
    """
    return plain_text(lambda console: show(data, console, wide=wide), width)


def show(data: ComparisonData, console: Console, *, wide: bool = False) -> None:
    """Write the comparison to a rich console.

    Args:
        data: the comparison.
        console: to write to.
        wide: as for `to_text`.
    """
    widen(console)
    for part in _parts(data, console.width, wide):
        console.print(part)


def _parts(data: ComparisonData, width: int, wide: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [
        styled(rows.title(data), style="bold"),
        styled(rows.versions(data), style="dim"),
    ]
    if disturbed := disturbance_text(data):
        parts += [styled(), _item("Disturbed", disturbed, width)]
    if wrong := rows.wrong_labels(data):
        parts += [styled(), styled("Not what they say", style="bold red")]
        parts += [_item("", sentence, width) for sentence in wrong]
    if data.results:
        parts += [
            styled(),
            _table(data, width, wide),
            styled(),
            styled(rows.legend(data), style="dim"),
        ]
    if notes := rows.notes(data):
        parts += [styled(), styled("Notes", style="bold")]
        parts += [_item(_rows_text(names, data), sentence, width) for names, sentence in notes]
    if data.failures:
        parts += [styled(), styled("Could not run", style="bold")]
        parts += [_item(f.backend, rows.failure_text(f), width) for f in data.failures]
    return parts


def _rows_text(names: list[str], data: ComparisonData) -> str:
    if len(names) >= _MIN_ROWS_FOR_EVERY_ROW and len(names) == len(data.results):
        return "every row"
    return ", ".join(names)


def _table(data: ComparisonData, width: int, wide: bool) -> RenderableType:
    columns = [
        Column("backend", right=False, breaks=True),
        *map(Column, ("latency", "±", rows.throughput_unit(data), "speed-up", "rel. error")),
    ]
    lines = _lines(data)
    more, cells = _extra_columns(data)
    if more:
        whole = [[*line, *extra] for line, extra in zip(lines, cells, strict=True)]
        if wide or table_width([*columns, *more], whole) <= width:
            return table([*columns, *more], whole, width)
    return table(columns, lines, width)


def _lines(data: ComparisonData) -> list[list[Text]]:
    found = speedups(data)
    texts = [rows.row_text(data, row, found.get(row.backend)) for row in data.results]
    return [
        [
            styled(text.backend),
            styled(text.latency),
            styled(text.width.lstrip("±")),
            styled(text.throughput),
            styled(text.speedup),
            styled(text.agreement),
        ]
        for text in texts
    ]


def _extra_columns(data: ComparisonData) -> tuple[list[Column], list[list[Text]]]:
    """Columns of memory and energy, if any row has them."""
    known = {
        "peak memory": [rows.memory_text(row) for row in data.results],
        "energy": [rows.energy_text(row) for row in data.results],
    }
    found = {heading: texts for heading, texts in known.items() if any(texts)}
    cells = [[styled(text or "-") for text in line] for line in zip(*found.values(), strict=True)]
    return [Column(heading) for heading in found], cells


def _item(about: str, sentence: str, width: int) -> RenderableType:
    from rich.constrain import Constrain
    from rich.padding import Padding

    room = min(width, _MAX_TEXT_WIDTH) - _INDENT
    name = styled_lines(readable(f"{about}: ", room) if about else "", "bold")
    text = name + styled_lines(readable(sentence, room))
    return Constrain(Padding(text, (0, 0, 0, _INDENT)), room + _INDENT)
