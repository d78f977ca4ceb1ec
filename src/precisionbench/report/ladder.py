"""A ladder as text: each change with what it is worth, from the user's own row on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from precisionbench.diagnosis.gap.ledger import Factor
from precisionbench.diagnosis.gap.measured import BY_ITSELF, is_sound, rate_of
from precisionbench.report.formatting import half_width, significant
from precisionbench.report.plain import WIDTH, plain_text, print_list
from precisionbench.results import ComparisonData
from precisionbench.speedups import per_item_ratio

if TYPE_CHECKING:
    from rich.console import Console


def to_text(
    data: ComparisonData,
    ends: tuple[str, str],
    rungs: Sequence[Factor],
    off: Sequence[str],
    stopped: Sequence[str],
    width: int = WIDTH,
) -> str:
    """The way up, the rows beside it, and where it ends.

    Args:
        data: the comparison of all rungs.
        ends: names of the rows at the bottom and at the top.
        rungs: what each change is worth.
        off: names of measured rows that are not on the way.
        stopped: where this machine cannot climb on.
        width: columns to fill at most.
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
    from rich import box
    from rich.table import Table
    from rich.text import Text

    gpu = data.environment.gpu
    where = gpu.name if gpu else data.environment.cpu
    console.print(Text(f"{data.workload.model} on {where}", style="bold"))
    console.print(Text())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for heading, justify in (("items/s", "right"), ("factor", "right"), ("±", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("change")
    bottom, top = ends
    rate = rate_of(data, bottom)
    table.add_row(_rate(rate), "", "", Text(bottom))
    for rung in rungs:
        rate *= rung.factor.value
        table.add_row(
            _rate(rate), f"{rung.factor.value:.3g}x", half_width(rung.factor), Text(rung.name)
        )
    console.print(table, Text())
    lines = [_whole(data, bottom, top)]
    lines += [f"{one.name}: {one.reason}." for one in rungs if one.reason not in ("", BY_ITSELF)]
    lines += [_beside(data, name) for name in off]
    lines += [f"{failure.backend} could not be measured: {failure.reason}."
              for failure in data.failures]  # fmt: skip
    print_list([*lines, *(f"{reason}." for reason in stopped)], console)


def _whole(data: ComparisonData, bottom: str, top: str) -> str:
    if bottom == top:
        return f"no other row whose output is finite is faster here than {bottom}."
    whole = per_item_ratio(data, bottom, top)
    return (
        f"{top} serves {_rate(rate_of(data, top))} items/s: {whole.value:.3g} times as many as "
        f"{bottom} ({whole.low:.3g} to {whole.high:.3g}, these two rows by themselves)."
    )


def _beside(data: ComparisonData, name: str) -> str:
    row = next(row for row in data.results if row.backend == name)
    doubt = "" if is_sound(row) else "; its output is not finite where the reference's is"
    return f"beside the way: {name}, {_rate(rate_of(data, name))} items/s{doubt}."


def _rate(value: float) -> str:
    return significant(value, max(3, len(str(int(value)))))
