"""The table, as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from precisionbench.report import rows
from precisionbench.report.plain import WIDTH, plain_text, widen
from precisionbench.results import ComparisonData
from precisionbench.speedups import speedups

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MIN_NAME_WIDTH = 12


def to_text(data: ComparisonData, width: int = WIDTH) -> str:
    """The comparison as plain text.

    Args:
        data: the comparison.
        width: columns to fill at most; 60 at least.
    """
    return plain_text(lambda console: show(data, console), width)


def show(data: ComparisonData, console: Console) -> None:
    """Write the comparison to a rich console.

    Args:
        data: the comparison.
        console: where to.
    """
    widen(console)
    for part in _parts(data):
        console.print(part)


def _parts(data: ComparisonData) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(rows.title(data), style="bold"),
        Text(rows.versions(data), style="dim"),
    ]
    if wrong := rows.wrong_labels(data):
        lines: list[tuple[list[str], str]] = [([], sentence) for sentence in wrong]
        parts += [Text(), Text("Not what they say", style="bold red"), _listed(lines)]
    if data.results:
        parts += [Text(), _table(data), Text(), Text(rows.legend(data), style="dim")]
    if notes := rows.notes(data):
        parts += [Text(), Text("Notes", style="bold"), _listed(notes)]
    if data.failures:
        failed = [([failure.backend], rows.failure_text(failure)) for failure in data.failures]
        parts += [Text(), Text("Could not run", style="bold"), _listed(failed)]
    return parts


def _table(data: ComparisonData) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("backend", overflow="fold", min_width=_MIN_NAME_WIDTH)
    for heading in ("latency", "±", rows.throughput_unit(data), "speed-up", "rel. error"):
        table.add_column(heading, justify="right", no_wrap=True)
    found = speedups(data)
    for row in data.results:
        text = rows.row_text(data, row, found.get(row.backend))
        cells = (
            text.latency,
            text.width.lstrip("±"),
            text.throughput,
            text.speedup,
            text.agreement,
        )
        table.add_row(Text(text.backend), *map(Text, cells))
    return table


def _listed(lines: list[tuple[list[str], str]]) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid()
    for names, sentence in lines:
        about = Text(f"{', '.join(names)}: " if names else "", style="bold")
        grid.add_row(about + Text(sentence))
    return Padding(grid, (0, 0, 0, 2))
