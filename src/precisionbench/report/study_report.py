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
    table_width,
    widen,
    with_lines_below,
)
from precisionbench.report.study_sections import LEGEND, Line, Section, sections
from precisionbench.report.study_words import headline, size_text
from precisionbench.safe_text import markdown, markdown_code

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_VERDICT = "verdict"
_WORDS = (_VERDICT, "changes")  # columns of words, which are left-aligned
_LEAST_NEEDED = (_VERDICT, "95 % CI")  # columns that a narrow table leaves out, in this order


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
    if _size(summary):
        yield from (styled(), paragraph(_size(summary), width, "dim"))
    found = sections(summary)
    for section in found:
        yield from section_parts(section, width)
    if any("speed-up" in section.headings for section in found):
        yield from (styled(), paragraph(LEGEND, width, "dim"))


def _size(summary: StudySummary) -> str:
    """How many cells there are; empty if the headline says it already."""
    size = size_text(summary)
    return "" if headline(summary) == f"{size}." else size


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
    """The table; without room, verdicts other than faster and slower are below the names."""
    left_out: set[str] = set()
    for heading in _LEAST_NEEDED:
        if table_width(*_content(section, left_out)) > width and heading in section.headings:
            left_out.add(heading)
    columns, rows = _content(section, left_out)
    if _VERDICT in left_out:
        rows = with_lines_below(rows, [_reservation(section, line) for line in section.lines])
    return table(columns, rows, width)


def _content(section: Section, left_out: set[str]) -> tuple[list[Column], list[Sequence[Text]]]:
    first, *others = section.headings
    kept = [(place, name) for place, name in enumerate(others) if name not in left_out]
    columns = [
        Column(first, right=False, breaks=True),
        *(Column(name, right=name not in _WORDS, breaks=name in _WORDS) for _, name in kept),
    ]
    rows: list[Sequence[Text]] = [
        [styled(line.name), *(styled(line.cells[place]) for place, _ in kept)]
        if line.cells
        else [styled(line.name, "bold")]
        for line in section.lines
    ]
    return columns, rows


def _reservation(section: Section, line: Line) -> str:
    """The verdict of a line that is neither faster nor slower."""
    if not line.cells:
        return ""
    verdict = line.cells[section.headings.index(_VERDICT) - 1]
    return "" if verdict in ("faster", "slower") or not verdict else f"  {verdict}"


def to_markdown(summary: StudySummary) -> str:
    """The study as GitHub-flavoured Markdown.

    Args:
        summary: of the study.
    """
    found = sections(summary)
    lines = [f"**{markdown(headline(summary))}**", ""]
    lines += [markdown(_size(summary)), ""] if _size(summary) else []
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
