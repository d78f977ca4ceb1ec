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
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(rows.title(data), style="bold"),
        Text(rows.versions(data), style="dim"),
    ]
    if disturbed := disturbance_text(data):
        parts += [Text(), _item("Disturbed", disturbed, width)]
    if wrong := rows.wrong_labels(data):
        parts += [Text(), Text("Not what they say", style="bold red")]
        parts += [_item("", sentence, width) for sentence in wrong]
    if data.results:
        parts += [Text(), _table(data, width, wide), Text(), Text(rows.legend(data), style="dim")]
    if notes := rows.notes(data):
        parts += [Text(), Text("Notes", style="bold")]
        parts += [_item(_rows_text(names, data), sentence, width) for names, sentence in notes]
    if data.failures:
        parts += [Text(), Text("Could not run", style="bold")]
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
    from rich.text import Text

    found = speedups(data)
    texts = [rows.row_text(data, row, found.get(row.backend)) for row in data.results]
    return [
        [
            Text(text.backend),
            Text(text.latency),
            Text(text.width.lstrip("±")),
            Text(text.throughput),
            Text(text.speedup),
            Text(text.agreement),
        ]
        for text in texts
    ]


def _extra_columns(data: ComparisonData) -> tuple[list[Column], list[list[Text]]]:
    """Columns of memory and energy, if any row has them."""
    from rich.text import Text

    known = {
        "peak memory": [rows.memory_text(row) for row in data.results],
        "energy": [rows.energy_text(row) for row in data.results],
    }
    found = {heading: texts for heading, texts in known.items() if any(texts)}
    cells = [[Text(text or "-") for text in line] for line in zip(*found.values(), strict=True)]
    return [Column(heading) for heading in found], cells


def _item(about: str, sentence: str, width: int) -> RenderableType:
    from rich.constrain import Constrain
    from rich.padding import Padding
    from rich.text import Text

    room = min(width, _MAX_TEXT_WIDTH) - _INDENT
    name = Text(readable(f"{about}: ", room) if about else "", style="bold")
    text = name + Text(readable(sentence, room))
    return Constrain(Padding(text, (0, 0, 0, _INDENT)), room + _INDENT)
