"""Studies as text for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from precisionbench.analysis.study_summary import StudySummary
from precisionbench.report.plain import (
    WIDTH,
    Column,
    item,
    paragraph,
    plain_text,
    styled,
    table,
    widen,
)
from precisionbench.report.study_sections import LEGEND, Line, Section, sections
from precisionbench.report.study_words import headline, size_text
from precisionbench.safe_text import markdown, markdown_code

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LEFT = ("verdict", "changes")  # columns of words


def to_text(summary: StudySummary, width: int = WIDTH) -> str:
    """The study as plain text.

    Args:
        summary: of the study.
        width: maximum number of columns; 40 or more.
    """
    return plain_text(lambda console: show(summary, console), width)


def show(summary: StudySummary, console: Console) -> None:
    """Write the study to a rich console.

    Args:
        summary: of the study.
        console: to write to.
    """
    widen(console)
    for part in _parts(summary, console.width):
        console.print(part)


def _parts(summary: StudySummary, width: int) -> Iterator[RenderableType]:
    yield paragraph(headline(summary), width, "bold")
    yield styled()
    yield paragraph(size_text(summary), width, "dim")
    found = sections(summary)
    for section in found:
        yield from section_parts(section, width)
    if any("speed-up" in section.headings for section in found):
        yield from (styled(), paragraph(LEGEND, width, "dim"))


def section_parts(section: Section, width: int) -> Iterator[RenderableType]:
    """A section for a rich console.

    Args:
        section: to show.
        width: maximum number of columns.
    """
    yield from (styled(), paragraph(section.title, width, "bold"))
    yield from (item("", sentence, width) for sentence in section.sentences)
    if section.lines:
        yield from (styled(), _table(section, width))
    yield from (item("", note, width) for note in section.notes)


def _table(section: Section, width: int) -> RenderableType:
    first, *others = section.headings
    columns = [
        Column(first, right=False, breaks=True),
        *(Column(name, right=name not in _LEFT, breaks=name in _LEFT) for name in others),
    ]
    blank = ("",) * len(others)
    rows = [
        [styled(line.name, "" if line.cells else "bold"), *map(styled, line.cells or blank)]
        for line in section.lines
    ]
    return table(columns, rows, width)


def to_markdown(summary: StudySummary) -> str:
    """The study as GitHub-flavoured Markdown.

    Args:
        summary: of the study.
    """
    found = sections(summary)
    lines = [f"**{markdown(headline(summary))}**", "", markdown(size_text(summary)), ""]
    for section in found:
        lines += section_markdown(section)
    if any("speed-up" in section.headings for section in found):
        lines += [LEGEND, ""]
    return "\n".join(lines)


def section_markdown(section: Section) -> list[str]:
    """A section as lines of Markdown.

    Args:
        section: to show.
    """
    parts = [[f"### {markdown(section.title)}"], _items(section.sentences)]
    parts += [[*_markdown_table(section.headings, section.lines)] if section.lines else []]
    parts += [_items(section.notes)]
    return [line for part in parts if part for line in (*part, "")]


def _items(sentences: Sequence[str]) -> list[str]:
    return [f"- {markdown(text)}" for text in sentences]


def _markdown_table(headings: Sequence[str], lines: Sequence[Line]) -> Iterator[str]:
    yield f"| {' | '.join(map(markdown, headings))} |"
    yield "|---" + "|---:" * (len(headings) - 1) + "|"
    for line in lines:
        name = markdown_code(line.name.strip())
        first = name if line.cells else f"**{name}**"
        cells = line.cells or ("",) * (len(headings) - 1)
        yield f"| {' | '.join([first, *map(markdown, cells)])} |"
