"""A ladder as text: each change with its factor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from precisionbench._internal.interval_text import span
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.diagnosis.gap.ledger import Factor
from precisionbench.diagnosis.gap.measured import (
    BY_ITSELF,
    has_finite_output,
    rate_of,
    rows_reached,
)
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.formatting import half_width, rate, significant, supported_digits
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
from precisionbench.results import ComparisonData

if TYPE_CHECKING:
    from rich.console import Console


_COLUMNS = (
    *map(Column, ("items/s", "factor", "±")),
    Column("change", right=False, breaks=True),
)


def to_text(
    data: ComparisonData,
    ends: tuple[str, str],
    rungs: Sequence[Factor],
    off: Sequence[str],
    stopped: Sequence[str],
    width: int = WIDTH,
) -> str:
    """The fastest row in a sentence, the changes, other rows and what could not be measured.

    Args:
        data: the comparison of all rows.
        ends: names of the first and the last row.
        rungs: the factor of each change.
        off: names of the other measured rows.
        stopped: why further rows could not be measured.
        width: maximum number of columns.
    """
    return plain_text(lambda console: _show(data, ends, rungs, off, stopped, console), width)


def _show(
    data: ComparisonData,
    ends: tuple[str, str],
    rungs: Sequence[Factor],
    off: Sequence[str],
    stopped: Sequence[str],
    console: Console,
) -> None:
    widen(console)
    gpu = data.environment.gpu
    where = gpu.name if gpu else data.environment.cpu
    console.print(paragraph(_total(data, *ends), console.width, "bold"), styled())
    console.print(styled(f"{data.workload.model} on {where}"))
    if disturbed := disturbance_text(data):
        print_list([f"Disturbed: {disturbed}."], console)
    console.print(styled())
    cells = [[styled(text) for text in step] for step in _steps(data, ends, rungs)]
    console.print(table(_COLUMNS, cells, console.width), styled())
    print_list(_sentences(data, rungs, off, stopped), console)


def _steps(
    data: ComparisonData, ends: tuple[str, str], rungs: Sequence[Factor]
) -> Iterator[tuple[str, str, str, str]]:
    """Rate, factor, half-width and name of each line, from the first row on."""
    bottom, top = ends
    yield rate(rate_of(data, bottom)), "", "", bottom
    for rung, row in zip(rungs, rows_reached(data, bottom, top), strict=True):
        digits = min(3, supported_digits(rung.factor))
        factor = f"{significant(rung.factor.value, digits)}x"
        items_per_s = rate(rate_of(data, row)) if row else ""
        yield items_per_s, factor, half_width(rung.factor).lstrip("±"), rung.name


def _sentences(
    data: ComparisonData,
    rungs: Sequence[Factor],
    off: Sequence[str],
    stopped: Sequence[str],
) -> Iterator[str]:
    if rungs:
        product = math.prod(rung.factor.value for rung in rungs)
        yield f"the factors multiply to {product:.3g}x."
    yield from (f"{one.name}: {one.reason}." for one in rungs if one.reason not in ("", BY_ITSELF))
    yield from (_other_row(data, name) for name in off)
    for failure in data.failures:
        yield f"{failure.backend} could not be measured: {failure.reason}."
    yield from (f"{reason}." for reason in stopped)


def _total(data: ComparisonData, bottom: str, top: str) -> str:
    if bottom == top:
        return f"No other row with a finite output is faster than {bottom}."
    whole, items_per_s = per_item_ratio(data, bottom, top), rate(rate_of(data, top))
    return f"{top} is fastest: {whole.value:.3g}x {bottom} ({span(whole)}), {items_per_s} items/s."


def _other_row(data: ComparisonData, name: str) -> str:
    row = next(row for row in data.results if row.backend == name)
    doubt = "" if has_finite_output(row) else "; its output is not finite where the reference's is"
    return f"also tried: {name}, {rate(rate_of(data, name))} items/s{doubt}."
