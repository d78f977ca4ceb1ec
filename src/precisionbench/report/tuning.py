"""A tuning result as text for a terminal and as Markdown: the choice, the front, what lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.report import rows
from precisionbench.report import tuning_texts as texts
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.markdown import codes
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
from precisionbench.results.tuning import LeftOut, TuningData
from precisionbench.safe_text import markdown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


def to_text(data: TuningData, width: int = WIDTH) -> str:
    """The result as plain text.

    Args:
        data: the result.
        width: maximum number of columns; 40 or more.
    """
    return plain_text(lambda console: show(data, console), width)


def show(data: TuningData, console: Console) -> None:
    """Write the result to a rich console.

    Args:
        data: the result.
        console: to write to.
    """
    widen(console)
    for part in _parts(data, console.width):
        console.print(part)


def _parts(data: TuningData, width: int) -> Iterator[RenderableType]:
    yield paragraph(texts.headline(data), width, "bold")
    yield paragraph(texts.choice(data), width)
    yield styled()
    yield styled(rows.title(data.final))
    yield styled(rows.versions(data.final), "dim")
    yield paragraph(texts.course(data), width, "dim")
    if disturbed := disturbance_text(data.final):
        yield from (styled(), item("Disturbed", disturbed, width))
    if data.final.results:
        yield from (styled(), _table(data, width), styled())
        yield paragraph(texts.legend(data), width, "dim")
    for heading, items in _sections(data).items():
        yield from _section(heading, items, width)


def _sections(data: TuningData) -> dict[str, texts.Items]:
    """What is below the table, by heading."""
    found = {
        **texts.not_chosen(data),
        "Left out": texts.left_out(data),
        "Notes": texts.notes(data),
    }
    return {heading: items for heading, items in found.items() if items}


def _section(heading: str, items: texts.Items, width: int) -> Iterator[RenderableType]:
    yield from (styled(), styled(heading, "bold"))
    yield from (item(", ".join(names), sentence, width) for names, sentence in items)


@attrs.frozen
class _Cells:
    """A column with its cells; columns of rank 0 are always shown, others while there is room."""

    column: Column
    texts: Sequence[str]
    rank: int = 0


def _columns(data: TuningData) -> list[_Cells]:
    found = texts.front_texts(data)
    columns = [
        _Cells(Column("configuration", right=False, breaks=True), [t.row.backend for t in found]),
        _Cells(Column("latency"), [t.row.latency for t in found]),
        _Cells(Column("±"), [t.row.width.lstrip("±") for t in found], 3),
        _Cells(Column(rows.throughput_unit(data.final)), [t.row.throughput for t in found], 2),
        _Cells(Column("speed-up"), [t.row.speedup for t in found]),
        _Cells(Column("95 % CI"), [t.interval for t in found], 1),
        _Cells(Column(texts.loss_heading(data)), [t.loss for t in found]),
        _Cells(Column("peak memory"), [t.memory for t in found], 4),
        _Cells(Column("energy"), [t.energy for t in found], 5),
        _Cells(Column("", right=False), [t.status for t in found]),
    ]
    return [one for one in columns if not one.rank or set(one.texts) - {"", "-"}]


def _table(data: TuningData, width: int) -> RenderableType:
    """The front, with as many columns as there is room for."""
    columns, shown = _columns(data), 0
    for rank in range(1, 1 + max(one.rank for one in columns)):
        if table_width(*_content(columns, rank)) <= width:
            shown = rank
    headings, lines = _content(columns, shown)
    doubts = [found.doubt for found in texts.front_texts(data)]
    return table(headings, with_lines_below(lines, doubts), width)


def _content(columns: Sequence[_Cells], rank: int) -> tuple[list[Column], list[Sequence[Text]]]:
    """The headings and lines with the columns up to a rank; what is not known is a dash."""
    shown = [one for one in columns if one.rank <= rank]
    cells = [[text or "-" * bool(one.column.heading) for text in one.texts] for one in shown]
    lines: list[Sequence[Text]] = [[*map(styled, line)] for line in zip(*cells, strict=True)]
    return [one.column for one in shown], lines


def summary(data: TuningData) -> Iterator[str]:
    """The result in a few lines, as a prompt shows it.

    Args:
        data: the result.
    """
    yield rows.title(data.final)
    yield texts.headline(data)
    yield texts.choice(data)
    yield texts.course(data)


def to_markdown(data: TuningData) -> str:
    """The result as GitHub-flavoured Markdown.

    Args:
        data: the result.
    """
    lines = [f"**{markdown(texts.headline(data))}**", "", markdown(texts.choice(data)), ""]
    lines += [markdown(rows.title(data.final)), "", markdown(rows.versions(data.final)), ""]
    lines += [markdown(texts.course(data)), ""]
    if disturbed := disturbance_text(data.final):
        lines += [f"**Disturbed:** {markdown(disturbed)}", ""]
    if data.final.results:
        lines += [*_markdown_table(data), "", markdown(texts.legend(data)), ""]
    for heading, items in _sections(data).items():
        lines += [f"{heading}:", "", *(_markdown_item(*one) for one in items), ""]
    return "\n".join(lines)


def _markdown_item(names: Sequence[str], sentence: str) -> str:
    about = f"{codes([*names])}: " if names else ""
    return f"- {about}{markdown(sentence)}"


def _markdown_table(data: TuningData) -> list[str]:
    columns = _columns(data)
    first, *others = columns
    headings = [markdown(one.column.heading or "front") for one in others]
    lines = [f"| {first.column.heading} | {' | '.join(headings)} |"]
    lines.append("|---" + "|---:" * len(headings) + "|")
    for place, name in enumerate(first.texts):
        cells = " | ".join(markdown(one.texts[place]) for one in others)
        lines.append(f"| {codes([name])} | {cells} |")
    return lines


def space_text(
    tried: Sequence[str],
    further: Mapping[str, Sequence[str]],
    left_out: Sequence[LeftOut],
    batch_sizes: Sequence[int] = (),
    width: int = WIDTH,
) -> str:
    """What a search would try, and what it leaves out.

    Args:
        tried: the configurations that it tries, in order.
        further: by backend, options that it tries if the backend is fast.
        left_out: what it does not try.
        batch_sizes: other batch sizes that it tries.
        width: maximum number of columns.
    """
    sizes: texts.Items = [([], f"batch_size={size}") for size in batch_sizes]
    sections: dict[str, texts.Items] = {
        "Tried": [([], spec) for spec in tried],
        "Tried further, one at a time, on the fastest accurate configuration of": [
            ([name], ", ".join(options)) for name, options in further.items() if options
        ],
        "Tried last, on each of the two fastest configurations": sizes,
        "Left out": texts.grouped((one.what, one.reason) for one in left_out),
    }

    def write(console: Console) -> None:
        widen(console)
        for heading, items in sections.items():
            for part in _section(heading, items, console.width) if items else ():
                console.print(part)

    return plain_text(write, width).lstrip("\n")
