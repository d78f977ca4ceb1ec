"""Rows under the reporting conventions of other tools, as text and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from precisionbench.report import formatting
from precisionbench.report.plain import WIDTH, Column, plain_text, print_list, styled, table, widen
from precisionbench.rules import Source, Statement
from precisionbench.safe_text import markdown, markdown_code, markdown_link
from precisionbench.statistics import Interval

if TYPE_CHECKING:
    from rich.console import Console

Rows = Mapping[str, Sequence[Statement]]
_HEADINGS = ("rule", "figure", "value", "how")
_DIGITS = 4


def to_text(found: Rows, width: int = WIDTH) -> str:
    """One table for each row, then what each figure includes and its source, as plain text.

    Args:
        found: statements by row.
        width: maximum number of columns.
    """
    return plain_text(lambda console: _show(found, console), width)


def to_markdown(found: Rows) -> str:
    """The statements as GitHub-flavoured Markdown.

    Args:
        found: statements by row.
    """
    lines: list[str] = []
    for backend, statements in found.items():
        heading = [f"**{markdown_code(backend)}**, by reporting convention", ""]
        lines += [*heading, f"| {' | '.join(_HEADINGS)} |", "|---|---|---:|---|"]
        lines += [f"| {' | '.join(map(markdown, _cells(found)))} |" for found in statements]
        lines += ["", *(f"- {markdown(note)}" for note in _notes(statements)), ""]
    lines += ["What each figure includes:", ""]
    lines += [
        f"- {markdown(text)} ({markdown_link(source.url, source.title)})"
        for text, source in _insides(found)
    ]
    return "\n".join(lines)


def _show(found: Rows, console: Console) -> None:
    widen(console)
    columns = [Column(h, right=h == "value", breaks=h in ("rule", "figure")) for h in _HEADINGS]
    for backend, statements in found.items():
        cells = [[*map(styled, _cells(statement))] for statement in statements]
        console.print(styled(f"{backend}, by reporting convention", style="bold"))
        console.print(table(columns, cells, console.width), styled())
        print_list(_notes(statements), console)
    console.print(styled("What each figure includes", style="bold"))
    insides = _insides(found)
    print_list([f"{text} ({source.title})" for text, source in insides], console)
    console.print(styled("Sources", style="bold"))
    sources = dict.fromkeys(source for _, source in insides)
    print_list([f"{source.title}: {source.url}" for source in sources], console)


def _cells(statement: Statement) -> tuple[str, str, str, str]:
    how = "not stated" if statement.value is None else statement.kind
    return statement.rule, statement.figure, value_text(statement), how


def value_text(statement: Statement) -> str:
    """The figure with its unit, a derived range as `low to high`; `-` if it is not stated."""
    value, low, high = statement.value, statement.low, statement.high
    if value is None:
        return "-"
    if statement.kind == "derived" and low is not None and high is not None and low < high:
        rates = [formatting.significant(end, _DIGITS) for end in (low, high)]
        return f"{rates[0]} to {rates[1]} {statement.unit}"
    digits = _DIGITS
    if low is not None and high is not None:
        digits = formatting.supported_digits(Interval(value, low, high))
    if statement.unit == "s":
        return formatting.time_text(value, digits)
    return f"{formatting.significant(value, digits)} {statement.unit}"


def _notes(statements: Sequence[Statement]) -> list[str]:
    """Figures that are not stated with the reason, and conditions of a rule that the run misses."""
    notes = [f"{s.rule}, {s.figure}: not stated: {s.missing}" for s in statements if s.missing]
    notes += [f"{s.rule}: {'; '.join(s.unmet)}" for s in statements if s.unmet]
    return notes


def _insides(found: Rows) -> list[tuple[str, Source]]:
    """What each figure includes, with its source, each sentence once."""
    figures: dict[tuple[str, str, Source], list[str]] = {}
    for statements in found.values():
        for s in statements:
            names = figures.setdefault((s.rule, s.inside, s.source), [])
            names += [s.figure] if s.figure not in names else []
    return [
        (f"{rule}, {'; '.join(names)}: {inside}", source)
        for (rule, inside, source), names in figures.items()
    ]
