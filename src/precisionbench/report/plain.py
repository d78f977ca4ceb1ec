"""Tables and lists as plain text."""

from __future__ import annotations

import io
import random
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench import safe_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDTH = 80
# On narrower terminals lines wrap, because cut figures would be useless.
MIN_WIDTH = 40
# Pieces of a name up to this length are never cut; longer ones would make the column too wide.
_MAX_PIECE = 40
_GAP = 2  # between columns
_MAX_TEXT_WIDTH = 100  # columns of prose
_INDENT = "  "
_NO_BREAK = "\N{NO-BREAK SPACE}"
_PIECE = re.compile(r"[^\s,:/]*(?:[,:/]+|\s+(?:%\s*)?|$)")


def plain_text(show: Callable[[Console], None], width: int = WIDTH) -> str:
    """The output of a function without colours, independent of the environment's terminal options.

    Args:
        show: writes to a console.
        width: maximum number of columns.
    """
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=False,
        force_jupyter=False,  # in a notebook rich would display the text and write nothing
        no_color=True,
        highlight=False,
        emoji=False,
    )
    state = random.getstate()  # rich draws a number for each style
    show(console)
    random.setstate(state)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def styled(content: str = "", style: str = "") -> Text:
    """Text for a rich console, of which everything is visible and in one line.

    Reports make text with this function or the next one only.

    Args:
        content: what is shown.
        style: as rich names it.
    """
    return styled_lines(safe_text.line(content), style)


def styled_lines(content: str, style: str = "") -> Text:
    """Text that is broken into lines already, of which everything is visible.

    Args:
        content: what is shown.
        style: as rich names it.
    """
    from rich.text import Text

    return Text(safe_text.lines(content), style)


def widen(console: Console) -> None:
    """Let lines wrap on a console that is too narrow for the figures."""
    console.width = max(console.width, MIN_WIDTH)


def print_list(lines: Iterable[str], console: Console, indent: int = 2) -> None:
    """Print sentences, each wrapped with its later lines indented; addresses are not cut.

    Args:
        lines: one sentence each.
        console: to write to.
        indent: columns before each line; two more before the lines that follow.
    """
    for line in lines:
        wrapped = textwrap.wrap(
            safe_text.line(line),
            console.width,
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(styled_lines("\n".join(wrapped)), soft_wrap=True)


def paragraph(sentence: str, width: int, style: str = "") -> RenderableType:
    """A sentence within a readable width; names are not broken unless they are longer than a line.

    Args:
        sentence: to show.
        width: maximum number of columns.
        style: as rich names it.
    """
    from rich.constrain import Constrain

    room = min(width, _MAX_TEXT_WIDTH)
    return Constrain(styled_lines(readable(sentence, room), style), room)


def item(about: str, sentence: str, width: int) -> RenderableType:
    """A sentence below a heading.

    Args:
        about: what it is about, such as the name of a row; may be empty.
        sentence: to show.
        width: maximum number of columns.
    """
    from rich.constrain import Constrain
    from rich.padding import Padding
    from rich.text import Text

    room = min(width, _MAX_TEXT_WIDTH) - len(_INDENT)
    name = styled_lines(readable(f"{about}: ", room) if about else "", "bold")
    text = Text.assemble(name, styled_lines(readable(sentence, room)))
    return Constrain(Padding(text, (0, 0, 0, len(_INDENT))), room + len(_INDENT))


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        heading: its first line.
        right: whether its cells are right-aligned.
        breaks: whether its cells may take several lines.
    """

    heading: str
    right: bool = True
    breaks: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> RenderableType:
    """A table in which no figure is cut; a list of its cells if there is too little room.

    Args:
        columns: of the table; the first one has the names of the rows.
        rows: cells in their order; a row of one cell is a line of text that takes the whole
            width.
        width: maximum number of columns.
    """
    widths = _widths(columns, rows, width)
    return _table(columns, rows, widths, width) if widths else _list(columns, rows, width)


def with_lines_below(rows: Sequence[Sequence[Text]], texts: Sequence[str]) -> list[Sequence[Text]]:
    """The rows of a table, some of them with a line more below them.

    Args:
        rows: cells in their order.
        texts: for each row; an empty one adds nothing.
    """
    result: list[Sequence[Text]] = []
    for row, text in zip(rows, texts, strict=True):
        result.append(row)
        if text:
            result.append([styled(f"{_INDENT}{text}", "dim")])
    return result


def with_blank_lines(parts: Sequence[Sequence[Sequence[Text]]]) -> list[Sequence[Text]]:
    """The rows of a table with an empty one between its parts.

    Args:
        parts: each with its rows.
    """
    result: list[Sequence[Text]] = []
    for rows in parts:
        if result and rows:
            result.append([styled() for _ in rows[0]])
        result += rows
    return result


def table_width(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> int:
    """The width of a table whose cells take one line each.

    Args:
        columns: of the table.
        rows: cells in their order.
    """
    return sum(_natural_widths(columns, rows)) + _GAP * (len(columns) - 1)


def _is_line(row: Sequence[Text]) -> bool:
    """Whether a row is a line of text instead of cells."""
    return len(row) == 1


def _natural_widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[int]:
    whole = [row for row in rows if not _is_line(row)]
    lengths = ([row[i].cell_len for row in whole] for i in range(len(columns)))
    return [max([len(c.heading), *found]) for c, found in zip(columns, lengths, strict=True)]


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int
) -> list[int] | None:
    """The width of each column; None if there is too little room."""
    whole = [row for row in rows if not _is_line(row)]
    widths = _natural_widths(columns, rows)
    room = width - _GAP * (len(columns) - 1)
    for place in reversed([i for i, column in enumerate(columns) if column.breaks]):
        excess = sum(widths) - room
        if excess > 0:
            least = max(
                [len(columns[place].heading), *(_min_width(row[place].plain) for row in whole)]
            )
            widths[place] = max(least, widths[place] - excess)
    return widths if sum(widths) <= room else None


def _min_width(name: str) -> int:
    """The smallest width of a name that cuts none of its pieces."""
    first, *others = [len(piece.rstrip()) for piece in _PIECE.findall(name)] or [0]
    return min(_MAX_PIECE, max([first, *(len(_INDENT) + other for other in others)]))


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], widths: Sequence[int], width: int
) -> RenderableType:
    """Tables of equal columns, with the lines of text between them."""
    from rich.console import Group

    parts = _split(rows)
    found: list[RenderableType] = [_part(columns, parts[0], widths, show_header=True)]
    for (line,), *others in parts[1:]:
        found.append(_broken(line, width))
        found += [_part(columns, others, widths, show_header=False)] if others else []
    return Group(*found)


def _split(rows: Sequence[Sequence[Text]]) -> list[list[Sequence[Text]]]:
    """The rows before the first line of text; then each such line with the rows after it."""
    parts: list[list[Sequence[Text]]] = [[]]
    for row in rows:
        if _is_line(row):
            parts.append([])
        parts[-1].append(row)
    return parts


def _part(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Text]],
    widths: Sequence[int],
    show_header: bool,
) -> RenderableType:
    from rich import box
    from rich.table import Table

    found = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        show_header=show_header,
    )
    for column, width in zip(columns, widths, strict=True):
        justify = "right" if column.right else "left"
        found.add_column(
            column.heading,
            justify=justify,  # type: ignore[arg-type]
            width=width,
            no_wrap=not column.breaks,
            overflow="fold",
        )
    for row in rows:
        cells = zip(columns, row, widths, strict=True)
        found.add_row(*(_broken(cell, width) if c.breaks else cell for c, cell, width in cells))
    return found


def _list(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> RenderableType:
    """Each row as its name, with its cells and their headings below it."""
    from rich.console import Group

    parts: list[Text] = []
    for name, *cells in rows:
        if not cells:
            parts.append(_broken(name, width))
            continue
        cells_text = [
            f"{column.heading} {cell.plain.strip()}".replace(" ", _NO_BREAK)
            for column, cell in zip(columns[1:], cells, strict=True)
            if column.heading and cell.plain.strip()
        ]
        parts.append(styled_lines(broken(name.plain, width), "bold" if cells_text else "dim"))
        lines = textwrap.wrap(
            ", ".join(cells_text),
            width,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )
        parts += [styled_lines("\n".join(lines).replace(_NO_BREAK, " "))] if lines else []
    return Group(*parts)


def _broken(cell: Text, width: int) -> Text:
    return (
        cell if cell.cell_len <= width else styled_lines(broken(cell.plain, width), str(cell.style))
    )


def broken(text: str, width: int) -> str:
    """A name broken into lines at its separators; continuation lines are indented.

    Args:
        text: such as a spec.
        width: maximum number of columns.
    """
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1].strip() and len((lines[-1] + piece).rstrip()) > width:
            lines.append(_INDENT + piece)
        else:
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def readable(text: str, width: int) -> str:
    """A sentence whose words longer than a line are broken at their separators.

    Args:
        text: a sentence with names in it.
        width: of a line.
    """
    long_word = rf"\S{{{width + 1},}}"
    return re.sub(long_word, lambda word: broken(word.group(), width), safe_text.line(text))
