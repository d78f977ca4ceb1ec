"""The ledger of a gap as text and Markdown, from the published number down to the measured one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from precisionbench._internal.interval_text import ends
from precisionbench.diagnosis.gap.ledger import Factor, GapData, Kind
from precisionbench.report.formatting import rate
from precisionbench.report.plain import (
    WIDTH,
    Column,
    paragraph,
    plain_text,
    print_list,
    styled,
    table,
    widen,
)
from precisionbench.safe_text import markdown, markdown_with_links
from precisionbench.statistics import Interval

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
_HEADINGS = ("items/s", "factor", "range", "how", "what")
_RIGHT = ("items/s", "factor")
_BAR_WIDTH, _NAME_WIDTH = 9, 24
_SEE_BELOW = "(its id is below)"
_MIN_WIDTH_WITH_BARS = 72  # columns


def to_text(gap: GapData, width: int = WIDTH) -> str:
    """The ledger as text: a warning if most is unknown, the waterfall, five sentences, and notes.

    Args:
        gap: the ledger.
        width: maximum number of columns.
    """
    return plain_text(lambda console: _show(gap, console), width)


def to_markdown(gap: GapData) -> str:
    """The ledger as GitHub-flavoured Markdown.

    Args:
        gap: the ledger.
    """
    lines = [f"**{gap.warning}**", ""] if gap.warning else []
    lines += [
        markdown(_headline(gap)),
        "",
        f"| {' | '.join(_HEADINGS)} |",
        "|---:|---:|---|---|---|",
    ]
    lines += [f"| {' | '.join(map(markdown, cells))} |" for cells, _ in _rows(gap)]
    lines += ["", *(markdown(sentence) for sentence in sentences(gap)), ""]
    for title, texts in _sections(gap):
        lines += [f"{title}:", "", *(f"- {markdown_with_links(text)}" for text in texts), ""]
    return "\n".join(lines)


def sentences(gap: GapData) -> tuple[str, ...]:
    """The ledger in five sentences.

    Args:
        gap: the ledger.
    """
    known = [row for row in gap.factors if row.kind is not Kind.UNEXPLAINED]
    largest = max(known, key=lambda row: abs(math.log(row.factor.value)), default=None)
    rest = gap.unexplained.factor
    texts = (
        _headline(gap),
        f"{_product(known, Kind.MEASURED)} of it was measured here, and "
        f"{_product(known, Kind.DERIVED)} is derived from cited figures.",
        f"{_product(known, Kind.ASSUMED)} is assumed, and {_times(rest)} "
        f"({_range(rest)}) is unexplained.",
        "No factor is known." if largest is None else
        f"The largest factor is {largest.name}: {_times(largest.factor)}, {largest.kind.value}.",
        f"The two numbers differ or may differ in {len(gap.differences)} conditions, which are "
        "listed below." if gap.differences else "No condition is known in which they differ.",
    )  # fmt: skip
    return tuple(text[:1].upper() + text[1:] for text in texts)


def _headline(gap: GapData) -> str:
    mine, theirs = gap.measured, gap.published
    return (
        f"{rate(mine.items_per_s.value)} items/s ({mine.name}) against "
        f"{rate(theirs.items_per_s.value)} ({theirs.name}): a gap of {gap.gap:.3g}x."
    )


def _product(rows: Sequence[Factor], kind: Kind) -> str:
    mine = [row.factor.value for row in rows if row.kind is kind]
    return f"{math.prod(mine):.3g}x" if mine else "nothing"


def _times(factor: Interval) -> str:
    return f"{factor.value:.3g}x"


def _range(factor: Interval) -> str:
    low, high = ends(factor)
    return low if low == high else f"{low} to {high}"


def _rows(gap: GapData) -> Iterator[tuple[tuple[str, ...], tuple[float, float]]]:
    """Cells from the top down, each with the rates at which its bar begins and ends."""
    rates = [gap.measured.items_per_s.value]
    for row in gap.factors:
        rates.append(rates[-1] * row.factor.value)
    top = gap.published
    yield (rate(top.items_per_s.value), "", "", "published", top.name), (rates[0], rates[-1])
    for place in range(len(gap.factors) - 1, -1, -1):
        row = gap.factors[place]
        how = "confirmed" if row.is_confirmed else row.kind.value
        cells = (rate(rates[place + 1]), _times(row.factor), _range(row.factor), how, row.name)
        yield cells, (rates[place], rates[place + 1])
    bottom = gap.measured
    how = "reported" if bottom.source.startswith("reported") else "measured"
    yield (rate(rates[0]), "", "", how, bottom.name), (rates[0], rates[0])


def _bar(ends: tuple[float, float], whole: tuple[float, float], encoding: str) -> str:
    """A bar on a logarithmic axis."""
    low, high = math.log(whole[0]), math.log(whole[1])
    span = high - low or 1.0
    a, b = sorted(round((math.log(end) - low) / span * _BAR_WIDTH) for end in ends)
    block = "█" if encoding.lower().startswith("utf") else "#"
    return " " * a + block * max(1, b - a)


def _show(gap: GapData, console: Console) -> None:
    widen(console)
    if gap.warning:
        console.print(paragraph(gap.warning, console.width, "bold red"))
        console.print()
    rows = list(_rows(gap))
    rates = [end for _, ends in rows for end in ends]
    whole = min(rates), max(rates)
    rows = [((*cells[:-1], _copyable(cells[-1], console.width)), ends) for cells, ends in rows]
    drawn = [
        [*map(styled, cells), styled(_bar(ends, whole, console.encoding))] for cells, ends in rows
    ]
    console.print(_chart(drawn, console.width))
    console.print()
    print_list(sentences(gap), console)
    for title, lines in _sections(gap):
        console.print()
        console.print(styled(title, style="bold"))
        print_list(lines, console)


def _copyable(name: str, width: int) -> str:
    """The name, or a reference to it below if it would be cut, so that ids can be copied."""
    room = _NAME_WIDTH + max(0, width - WIDTH)
    return _SEE_BELOW if len(name) > room and " " not in name else name


def _chart(rows: Sequence[Sequence[Text]], width: int) -> RenderableType:
    """The table, with bars if there is room; names break between words."""
    from rich import box
    from rich.table import Table

    if width < _MIN_WIDTH_WITH_BARS:
        columns = [Column(h, right=h in _RIGHT, breaks=h == "what") for h in _HEADINGS]
        return table(columns, [row[:-1] for row in rows], width)
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in (*_HEADINGS, ""):
        found.add_column(
            heading,
            justify="right" if heading in _RIGHT else "left",
            no_wrap=heading != "what",
            overflow="fold",
            min_width={"": _BAR_WIDTH, "what": _NAME_WIDTH}.get(heading),
        )
    for row in rows:
        found.add_row(*row)
    return found


def _sections(gap: GapData) -> Iterator[tuple[str, list[str]]]:
    sources = [
        f"{row.name}: {row.source}" + (f" ({row.reason})" if row.reason else "")
        for row in gap.factors
    ]
    ends = [f"{end.name}: {end.source}" for end in (gap.published, gap.measured)]
    sections = {
        "Check against peaks": list(gap.claims),
        "What differs": list(gap.differences),
        "Sources": [*ends, *sources],
        "Notes": list(gap.notes),
    }
    yield from ((title, lines) for title, lines in sections.items() if lines)
