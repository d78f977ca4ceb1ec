"""What has changed between two runs, as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from precisionbench.differences import Difference
from precisionbench.report import formatting
from precisionbench.report.plain import WIDTH, plain_text, widen
from precisionbench.report.rows import WORDS, ratio_texts
from precisionbench.results import Speedup
from precisionbench.statistics import Interval, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_STYLES = {Verdict.FASTER: "green", Verdict.SLOWER: "red"}
_LEGEND = (
    "change is old / new, above 1 is faster now; its interval (95 % over all rows) allows for what "
    "processes differ by and for drift between the runs. Of a speed-up over the reference, drift "
    "cancels."
)
_REASONS = {
    "one_process": "not told: one process",
    "too_few_rounds": "not told: few rounds",
    "not_interleaved": "not told: inline",
}


def to_text(found: Difference, width: int = WIDTH) -> str:
    """The changes as plain text.

    Args:
        found: two runs held against each other.
        width: columns to fill at most; 60 at least.
    """
    return plain_text(lambda console: show(found, console), width)


def show(found: Difference, console: Console) -> None:
    """Write the changes to a rich console.

    Args:
        found: two runs held against each other.
        console: where to.
    """
    widen(console)
    for part in _parts(found):
        console.print(part)


def _parts(found: Difference) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = []
    if found.mismatches:
        differing = "; ".join(map(str, found.mismatches))
        parts += [Text(f"NOT LIKE WITH LIKE: the runs differ in {differing}", "bold red"), Text()]
    parts.append(Text(f"{found.old_created} (old) to {found.new_created} (new)", style="bold"))
    if found.rows:
        parts += [Text(), _table(found), Text(), Text(_LEGEND, style="dim")]
    else:
        parts += [Text(), Text("no row was measured in both runs")]
    if notes := _notes(found):
        parts += [Text(), Text("Notes", style="bold"), *(Text(f"  {note}") for note in notes)]
    return parts


def _notes(found: Difference) -> list[str]:
    of_rows = [f"{row.backend}: {note}" for row in found.rows for note in row.notes]
    return [*found.notes, *of_rows]


def _table(found: Difference) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("backend", overflow="fold", min_width=12)
    for heading in ("old", "new", "change", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in found.rows:
        figures = _figures(row.old, row.new, row.speedup)
        table.add_row(Text(row.backend), *map(Text, figures), _verdict(row.speedup))
        if row.relative is not None:
            _add_relative(table, row.relative)
    return table


def _add_relative(table: Table, found: Speedup) -> None:
    from rich.text import Text

    value, interval = _ratio(found)
    cells = [Text(cell, "dim") for cell in ("  over the reference", "", "", value, interval)]
    table.add_row(*cells, _verdict(found))


def _figures(old: Interval, new: Interval, found: Speedup) -> tuple[str, str, str, str]:
    return formatting.duration(old), formatting.duration(new), *_ratio(found)


def _ratio(found: Speedup) -> tuple[str, str]:
    value, low, high = ratio_texts(found)
    return f"{value}x", f"{low} to {high}"


def _verdict(found: Speedup) -> Text:
    from rich.text import Text

    words = _REASONS.get(found.reason, WORDS[found.verdict])
    return Text(words, _STYLES.get(found.verdict, ""))
