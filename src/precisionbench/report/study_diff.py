"""Changes from one study to a later one, and the check of a CI job, as text and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.analysis.run_diff import RowChange
from precisionbench.analysis.study_check import CheckedRow, StudyCheck
from precisionbench.analysis.study_diff import StudyDifference
from precisionbench.display import TableResult
from precisionbench.report import formatting
from precisionbench.report.plain import WIDTH, item, paragraph, plain_text, styled, widen
from precisionbench.report.rows import ratio_texts, verdict_words
from precisionbench.report.run_diff import LEGEND, changes_table
from precisionbench.results import Speedup
from precisionbench.results.study import Cell
from precisionbench.safe_text import markdown, markdown_code
from precisionbench.statistics import Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# With more rows than this, a text has those that changed only.
_MOST_ROWS = 40
_CHANGED = (Verdict.FASTER, Verdict.SLOWER)
_MOST_UNDECIDED = 10
_LEGEND = f"{LEGEND} Intervals and verdicts are simultaneous over the rows of all cells."


@attrs.frozen(repr=False)
class StudyDiff(TableResult, StudyDifference):
    """Changes from one study to a later one; `str` makes a table of them."""

    @classmethod
    def of(cls, found: StudyDifference) -> StudyDiff:
        """The printable form of plain changes."""
        return cls(**{f.name: getattr(found, f.name) for f in attrs.fields(StudyDifference)})

    def _records(self) -> tuple[object, ...]:
        return tuple(row for _, row in self.rows)

    def _summary(self) -> Iterator[str]:
        yield headline(self)

    def __str__(self) -> str:
        return to_text(self)


def to_text(found: StudyDifference, width: int = WIDTH) -> str:
    """The changes of a study as plain text.

    Args:
        found: the difference of two studies.
        width: maximum number of columns; 40 or more.
    """
    return plain_text(lambda console: show(found, console), width)


def show(found: StudyDifference, console: Console) -> None:
    """Write the changes of a study to a rich console.

    Args:
        found: the difference of two studies.
        console: to write to.
    """
    widen(console)
    for part in _parts(found, console.width):
        console.print(part)


def _parts(found: StudyDifference, width: int) -> Iterator[RenderableType]:
    differing = list(dict.fromkeys(str(m) for one in found.cells for m in one.found.mismatches))
    if differing:
        yield paragraph(f"CONDITIONS DIFFER: {'; '.join(differing)}", width, "bold red")
        yield styled()
    yield paragraph(headline(found), width, "bold")
    shown = _shown(found)
    if shown:
        yield from (styled(), changes_table(_lines(shown), width), styled())
        yield paragraph(_LEGEND, width, "dim")
    if notes := list(_notes(found, len(shown))):
        yield from (styled(), styled("Notes", style="bold"))
        yield from (item("", note, width) for note in notes)


def headline(found: StudyDifference) -> str:
    """The changes of a study in one sentence.

    Args:
        found: the difference of two studies.
    """
    rows = found.rows
    if not rows:
        return "Nothing to compare: no row of any cell was measured in both studies."
    parts = [f"failing now: {', '.join(found.failing)}"] if found.failing else []
    parts += [text for text in (_most(rows, Verdict.SLOWER), _most(rows, Verdict.FASTER)) if text]
    undecided = sum(row.speedup.verdict is Verdict.INCONCLUSIVE for _, row in rows)
    rest = f"; {undecided} of {len(rows)} rows inconclusive" if undecided else ""
    if not parts:
        return f"No row of {len(found.cells)} cells is slower or faster{rest}."
    return f"{'; '.join(parts)}{rest}."


def _most(rows: Sequence[tuple[Cell, RowChange]], verdict: Verdict) -> str:
    """The row that changed most in one direction, with the number of others."""
    changed = [
        (cell, row, one, of)
        for cell, row in rows
        for one, of in ((row.speedup, ""), (row.relative, " over the reference"))
        if one is not None and one.verdict is verdict
    ]
    if not changed:
        return ""
    cell, row, most, of = max(changed, key=lambda one: abs(math.log(one[2].value)))
    value, low, high = ratio_texts(most)
    others = len({(cell, row.backend) for cell, row, *_ in changed}) - 1
    more = f" (and {others} more row{'s' * (others != 1)})" if others else ""
    return (
        f"{row.backend} of {cell.title} is {verdict.value} now: {value}x{of} "
        f"(95 % CI {low} to {high}){more}"
    )


def _shown(found: StudyDifference) -> list[tuple[Cell, RowChange]]:
    if len(found.rows) <= _MOST_ROWS:
        return list(found.rows)
    return [one for one in found.rows if _is_changed(one[1])]


def _is_changed(row: RowChange) -> bool:
    ratios = (row.speedup, row.relative)
    return any(one is not None and one.verdict in _CHANGED for one in ratios)


def _lines(rows: Sequence[tuple[Cell, RowChange]]) -> list[tuple[str, RowChange | None]]:
    lines: list[tuple[str, RowChange | None]] = []
    last: Cell | None = None
    for cell, row in rows:
        if cell != last:
            lines.append((cell.title, None))
        lines.append((f"  {row.backend}", row))
        last = cell
    return lines


def _notes(found: StudyDifference, shown: int) -> Iterator[str]:
    if hidden := len(found.rows) - shown:
        yield f"{hidden} rows that are neither faster nor slower are not shown (--json has all)"
    for cell, reason in found.broken:
        yield f"{cell.title} was measured before and fails now: {reason}"
    for one in found.cells:
        yield from (f"{one.cell.title}: {note}" for note in one.found.notes)
    if found.only_old:
        yield f"only in the older study: {'; '.join(cell.title for cell in found.only_old)}"
    if found.only_new:
        yield f"only in the newer study: {'; '.join(cell.title for cell in found.only_new)}"


# --- the check ------------------------------------------------------------------------------------


def check_headline(check: StudyCheck) -> str:
    """The result of a check in one sentence.

    Args:
        check: of a study.
    """
    if not check.count:
        return "Failed: nothing was compared; no row of any cell was measured in both studies."
    limit = _percent(check.limit)
    if check.passes:
        return f"Passed: none of {check.count} figures is slower by more than {limit}."
    parts = [f"failing now: {', '.join(check.failing)}"] if check.failing else []
    if count := len(check.slower):
        one = "figure is" if count == 1 else "figures are"
        parts.append(f"{count} of {check.count} {one} slower by more than {limit}")
    return f"Failed: {'; '.join(parts)}."


def check_sentences(check: StudyCheck) -> Iterator[str]:
    """Each slower figure, and what the check can and cannot find.

    Args:
        check: of a study.
    """
    yield from (f"slower: {_row_text(one)}" for one in check.slower)
    undecided = check.undecided[:_MOST_UNDECIDED]
    yield from (f"not decided: {_row_text(one)}" for one in undecided)
    if more := len(check.undecided) - len(undecided):
        yield f"not decided: {more} more"
    limit, rate = _percent(check.limit), _percent(check.false_alarm_rate)
    yield (
        f"false alarms: if no figure became slower by more than {limit}, at most {rate} of checks "
        f"fail, over all {check.count} figures together"
    )
    if check.found_from is not None:
        slow_down = _percent(check.found_from)
        yield f"with these intervals, half of all slow-downs of {slow_down} are found"


def _row_text(one: CheckedRow) -> str:
    value, low, high = ratio_texts(one.ratio)
    return (
        f"{one.backend} of {one.cell.title}, {one.of}: {value}x "
        f"(95 % CI {low} to {high}), {verdict_words(one.ratio)}"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %"


def check_text(check: StudyCheck, width: int = WIDTH) -> str:
    """A check as plain text.

    Args:
        check: of a study.
        width: maximum number of columns; 40 or more.
    """

    def show_check(console: Console) -> None:
        widen(console)
        console.print(paragraph(check_headline(check), console.width, "bold"))
        for sentence in check_sentences(check):
            console.print(item("", sentence, console.width))

    return plain_text(show_check, width)


def check_markdown(check: StudyCheck, found: StudyDifference, missed: Sequence[str] = ()) -> str:
    """A check with the table of all changes, as GitHub-flavoured Markdown.

    Args:
        check: of a study.
        found: the difference that was checked.
        missed: sentences about other thresholds.
    """
    title = f"{check_headline(check)}{f' Thresholds missed: {len(missed)}.' if missed else ''}"
    lines = [f"**{markdown(title)}**", ""]
    lines += [f"- {markdown(sentence)}" for sentence in (*missed, *check_sentences(check))]
    lines += ["", f"{markdown(headline(found))}", "", *_markdown_table(found), ""]
    notes = [f"- {markdown(note)}" for note in _notes(found, len(found.rows))]
    return "\n".join([*lines, *notes, *([""] if notes else []), _LEGEND, ""])


def _markdown_table(found: StudyDifference) -> Iterator[str]:
    yield "| cell | row | old | new | change | 95 % CI | verdict |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for cell, row in found.rows:
        title, name = markdown(cell.title), markdown_code(row.backend)
        figures = formatting.duration(row.old), formatting.duration(row.new)
        yield _markdown_line((title, name), figures, row.speedup)
        if row.relative is not None:
            yield _markdown_line((title, f"{name} over the reference"), ("", ""), row.relative)


def _markdown_line(names: tuple[str, str], figures: tuple[str, str], ratio: Speedup) -> str:
    value, low, high = ratio_texts(ratio)
    cells = (*figures, f"{value}x", f"{low} to {high}", verdict_words(ratio))
    return f"| {' | '.join([*names, *map(markdown, cells)])} |"
