"""A study as text: how far it is, and the rows of all its cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from precisionbench.analysis.speedups import speedups
from precisionbench.report.plain import WIDTH, Column, plain_text, print_list, styled, table, widen
from precisionbench.report.progress_state import clock_text
from precisionbench.report.rows import row_text
from precisionbench.results.study import CellResult, DeviceStatus

_HEADINGS = ("cell", "backend", "latency", "±", "items/s", "speed-up")


def status_text(devices: Sequence[DeviceStatus], width: int = WIDTH) -> str:
    """How far a study is, as plain text.

    Args:
        devices: of the study.
        width: maximum number of columns.
    """
    return plain_text(partial(show_status, devices), width)


def show_status(devices: Sequence[DeviceStatus], console: Console) -> None:
    """Write how far a study is to a rich console.

    Args:
        devices: of the study.
        console: to write to.
    """
    widen(console)
    console.print(styled(headline(devices), style="bold"))
    if not devices:
        return
    names = ("device", "measured", "failed", "left", "time left")
    columns = [Column(name, right=i > 0, breaks=i == 0) for i, name in enumerate(names)]
    console.print(table(columns, list(map(_status_line, devices)), console.width))


def headline(devices: Sequence[DeviceStatus]) -> str:
    """The first sentence about a study, such as `12 cells: 9 measured, 1 failed, 2 left`.

    Args:
        devices: of the study.
    """
    measured, failed = sum(d.measured for d in devices), sum(d.failed for d in devices)
    left = sum(d.left for d in devices)
    total = measured + failed + left
    if not total:
        return "No cell is finished yet."
    counts = f"{measured} measured, {failed} failed, {left} left"
    return f"{total} cell{'s' * (total != 1)}: {counts}"


def _status_line(one: DeviceStatus) -> list[Text]:
    remaining = "-" if one.remaining_s is None else clock_text(one.remaining_s)
    numbers = (one.measured, one.failed, one.left)
    return [styled(one.device), *(styled(str(number)) for number in numbers), styled(remaining)]


def cells_text(results: Sequence[CellResult], width: int = WIDTH) -> str:
    """The rows of all cells as plain text, with the reasons of those that failed.

    Args:
        results: of the study.
        width: maximum number of columns.
    """
    return plain_text(partial(show_cells, results), width)


def show_cells(results: Sequence[CellResult], console: Console) -> None:
    """Write the rows of all cells to a rich console, a table for each device.

    Args:
        results: of the study.
        console: to write to.
    """
    widen(console)
    for number, device in enumerate(dict.fromkeys(one.cell.device for one in results)):
        here = [one for one in results if one.cell.device == device]
        if number:
            console.print()
        console.print(styled(device, style="bold"))
        _show_device(here, console)


def _show_device(results: Sequence[CellResult], console: Console) -> None:
    lines = [line for one in results for line in _lines(one)]
    columns = [Column(name, right=i > 1, breaks=i <= 1) for i, name in enumerate(_HEADINGS)]
    if lines:
        console.print(table(columns, lines, console.width))
    if failed := list(_failed(results)):
        console.print()
        console.print(styled("Failed", style="bold"))
        print_list(failed, console)


def _lines(result: CellResult) -> Iterator[list[Text]]:
    """A line for each measured row; the cell is named in its first one."""
    if result.data is None:
        return
    found = speedups(result.data)
    for number, row in enumerate(result.data.results):
        text = row_text(result.data, row, found.get(row.backend))
        title = "" if number else result.cell.title
        figures = (text.latency, text.width.lstrip("±"), text.throughput, text.speedup)
        yield [styled(title), styled(text.backend), *map(styled, figures)]


def _failed(results: Sequence[CellResult]) -> Iterator[str]:
    """A sentence for each cell and each row that failed."""
    for one in results:
        if one.failure:
            yield f"{one.cell.title}: {one.failure}"
        for row in one.data.failures if one.data else ():
            yield f"{one.cell.title}, {row.label or row.backend}: {row.reason}"
