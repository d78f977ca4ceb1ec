"""An examination as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from precisionbench.doctor.checks import Check, State
from precisionbench.report.plain import WIDTH, plain_text, widen

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {State.GOOD: "ok", State.ATTENTION: "!", State.UNKNOWN: "?"}
_STYLES = {State.GOOD: "green", State.ATTENTION: "yellow", State.UNKNOWN: "dim"}


def to_text(checks: Sequence[Check], noise_floor: float | None, width: int = WIDTH) -> str:
    """An examination as plain text.

    Args:
        checks: its lines.
        noise_floor: what it measured of that.
        width: columns to fill at most; 60 at least.
    """
    return plain_text(lambda console: show(checks, noise_floor, console), width)


def show(checks: Sequence[Check], noise_floor: float | None, console: Console) -> None:
    """Write an examination to a rich console.

    Args:
        checks: its lines.
        noise_floor: what it measured of that.
        console: where to.
    """
    from rich.table import Table
    from rich.text import Text

    widen(console)
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        finding = Text(check.finding)
        if check.remedy:
            finding += Text(f"\n{check.remedy}", style="italic")
        mark = Text(_MARKS[check.state], style=_STYLES[check.state])
        table.add_row(mark, Text(check.subject, style="bold"), finding)
    console.print(table)
    console.print()
    console.print(Text(summary(checks, noise_floor)))


def summary(checks: Sequence[Check], noise_floor: float | None) -> str:
    """What an examination comes to, in a sentence or two.

    Args:
        checks: its lines.
        noise_floor: what it measured of that.
    """
    wanting = [
        check.subject
        for check in checks
        if check.state is State.ATTENTION and not check.subject.startswith("backend ")
    ]
    found = (
        f"{len(wanting)} of {len(checks)} lines want attention: {', '.join(wanting)}."
        if wanting
        else "Nothing stands in the way of measuring here."
    )
    if noise_floor is None:
        return found
    return (
        f"{found} Take processes of the same code to differ by {noise_floor:.2%} here: give "
        f"compare --noise-floor {noise_floor:.2g} where only one replica fits."
    )
