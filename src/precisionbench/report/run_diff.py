"""The differences between two runs, as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.analysis.run_diff import Difference, RowChange
from precisionbench.display import TableResult
from precisionbench.report import formatting, summaries
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
    with_lines_below,
)
from precisionbench.report.rows import ratio_texts, verdict_words
from precisionbench.results import Speedup
from precisionbench.statistics import Interval, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
_STYLES = {Verdict.FASTER: "green", Verdict.SLOWER: "red"}
LEGEND = (
    "change: old / new, above 1 is faster now; 95 % simultaneous CI, with run-to-run variance and "
    "drift between the runs. In speed-ups over the reference, drift cancels."
)


@attrs.frozen(repr=False)
class RunDiff(TableResult, Difference):
    """Changes from one run to a later one; `str` makes a table of them."""

    @classmethod
    def of(cls, found: Difference) -> RunDiff:
        """The printable form of plain changes."""
        return cls(**{f.name: getattr(found, f.name) for f in attrs.fields(Difference)})

    def _records(self) -> tuple[object, ...]:
        return self.rows

    def _summary(self) -> Iterator[str]:
        return summaries.of_difference(self)

    def __str__(self) -> str:
        return to_text(self)


def to_text(found: Difference, width: int = WIDTH) -> str:
    """The differences as plain text.

    Args:
        found: the difference of two runs.
        width: maximum number of columns; 40 or more.
    """
    return plain_text(lambda console: show(found, console), width)


def show(found: Difference, console: Console) -> None:
    """Write the differences to a rich console.

    Args:
        found: the difference of two runs.
        console: to write to.
    """
    widen(console)
    for part in _parts(found, console.width):
        console.print(part)


def _parts(found: Difference, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found.mismatches:
        differing = "; ".join(map(str, found.mismatches))
        parts += [
            paragraph(f"CONDITIONS DIFFER: {differing}", width, "bold red"),
            styled(),
        ]
    parts += [paragraph(headline(found), width, "bold"), styled()]
    parts.append(styled(f"{found.old_created} (old) to {found.new_created} (new)"))
    if found.rows:
        parts += [
            styled(),
            changes_table([(row.backend, row) for row in found.rows], width),
            styled(),
            paragraph(LEGEND, width, "dim"),
        ]
    if notes := _notes(found):
        parts += [
            styled(),
            styled("Notes", style="bold"),
            *(item("", note, width) for note in notes),
        ]
    return parts


def headline(found: Difference) -> str:
    """The differences in one sentence: what fails or is slower now, or that nothing is.

    Args:
        found: the difference of two runs.
    """
    if not found.rows:
        return "Nothing to compare: no row was measured in both runs."
    failing = f"{', '.join(found.broken)} failed in the newer run" if found.broken else ""
    slower = _changed(Verdict.SLOWER, found)
    changes = [text for text in (failing, slower) if text] or ["No row is slower"]
    if not failing and not slower:
        changes += [text for text in (_changed(Verdict.FASTER, found), _undecided(found)) if text]
    return f"{'; '.join(changes)}."


def _changed(verdict: Verdict, found: Difference) -> str:
    """The row that changed most, in latency or over the reference, with the number of others."""
    pairs = [(row.backend, row.speedup, "") for row in found.rows]
    pairs += [
        (row.backend, row.relative, " over the reference")
        for row in found.rows
        if row.relative is not None
    ]
    changed = [one for one in pairs if one[1].verdict is verdict]
    if not changed:
        return ""
    name, most, of = max(changed, key=lambda one: abs(math.log(one[1].value)))
    value, interval = _ratio(most)
    others = len({one[0] for one in changed}) - 1
    rows = f"are {others} other rows" if others > 1 else "is 1 other row"
    more = f"; so {rows}" if others else ""
    return f"{name} is {verdict_words(most)} now: {value}{of} (95 % CI {interval}){more}"


def _undecided(found: Difference) -> str:
    count = sum(row.speedup.verdict is Verdict.INCONCLUSIVE for row in found.rows)
    return f"{count} of {len(found.rows)} inconclusive" if count else ""


def _notes(found: Difference) -> list[str]:
    of_rows = [f"{row.backend}: {note}" for row in found.rows for note in row.notes]
    return [*found.notes, *of_rows]


_COLUMNS = (
    Column("backend", right=False, breaks=True),
    *map(Column, ("old", "new", "change", "95 % CI")),
)
_VERDICT = Column("verdict", right=False, breaks=True)
_GAP = 2  # columns before the verdict


def changes_table(rows: Sequence[tuple[str, RowChange | None]], width: int) -> RenderableType:
    """The table of changes; where verdicts have no room, they stand below the names.

    Args:
        rows: names of lines with their changes; None for a heading within the table.
        width: maximum number of columns.
    """
    lines: list[list[Text]] = []
    verdicts: list[Text] = []
    for name, row in rows:
        if row is None:
            lines.append([styled(name, "bold")])
            verdicts.append(styled())
            continue
        figures = _figures(row.old, row.new, row.speedup)
        lines.append([styled(name), *map(styled, figures)])
        verdicts.append(_verdict(row.speedup))
        if row.relative is not None:
            value, interval = _ratio(row.relative)
            indent = " " * (len(name) - len(name.lstrip()) + 2)
            cells = (f"{indent}over the reference", "", "", value, interval)
            lines.append([styled(cell, "dim") for cell in cells])
            verdicts.append(_verdict(row.relative))
    longest = max(len(word) for verdict in verdicts for word in [*verdict.plain.split(), ""])
    if table_width(_COLUMNS, lines) + _GAP + longest <= width:
        pairs = zip(lines, verdicts, strict=True)
        whole = [[*line, verdict] if line[1:] else line for line, verdict in pairs]
        return table([*_COLUMNS, _VERDICT], whole, width)
    return table(_COLUMNS, with_lines_below(lines, [one.plain for one in verdicts]), width)


def _figures(old: Interval, new: Interval, found: Speedup) -> tuple[str, str, str, str]:
    return formatting.duration(old), formatting.duration(new), *_ratio(found)


def _ratio(found: Speedup) -> tuple[str, str]:
    value, low, high = ratio_texts(found)
    return f"{value}x", f"{low} to {high}"


def _verdict(found: Speedup) -> Text:
    return styled(verdict_words(found), _STYLES.get(found.verdict, ""))
