"""Fragments of HTML for notebooks: escaped, without styles of their own but what a table needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from precisionbench import safe_text

_MAX_ROWS = 100
_LEFT = ' style="text-align: left"'


def escaped(text: object) -> str:
    """Text as HTML, of which everything is visible.

    Args:
        text: anything.
    """
    return escape(safe_text.lines(text))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> str:
    """A table of at most 100 rows.

    Args:
        headings: of the columns.
        rows: cells in their order.
        title: shown above it; may be empty.
    """
    found = list(rows)
    head = "".join(f"<th{_LEFT}>{escaped(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in found[:_MAX_ROWS])
    more = len(found) - _MAX_ROWS
    caption = f"<p><strong>{escaped(title)}</strong></p>" if title else ""
    rest = f"<p>... {more} more rows</p>" if more > 0 else ""
    return (
        f'<div style="overflow-x: auto">{caption}<table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{rest}</div>"
    )


def _cells(row: Sequence[object]) -> str:
    return "".join(f"<td{_LEFT}><bdi>{escaped(cell)}</bdi></td>" for cell in row)


def summary_and_text(summary: str, text: str) -> str:
    """A short text, with the whole text to be unfolded below it.

    Args:
        summary: at most ten lines.
        text: of any length.
    """
    return (
        f"<div>{_preformatted(summary)}<details><summary>Full text</summary>"
        f"{_preformatted(text)}</details></div>"
    )


def _preformatted(text: str) -> str:
    return f'<pre style="overflow-x: auto">{escaped(text)}</pre>'
