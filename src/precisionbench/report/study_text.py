"""How far a study is, as text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from precisionbench.report.plain import WIDTH, Column, plain_text, styled, table, widen
from precisionbench.report.progress_state import clock_text
from precisionbench.results.study import DeviceStatus


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
