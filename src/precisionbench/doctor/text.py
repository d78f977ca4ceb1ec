"""An examination as text: plain, or on a rich console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from precisionbench.doctor.checks import MachineCheck, State
from precisionbench.report.plain import WIDTH, plain_text, styled, styled_lines, widen

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {State.GOOD: "ok", State.ATTENTION: "!", State.UNKNOWN: "?"}
_STYLES = {State.GOOD: "green", State.ATTENTION: "yellow", State.UNKNOWN: "dim"}


def to_text(checks: Sequence[MachineCheck], noise_floor: float | None, width: int = WIDTH) -> str:
    """An examination as plain text.

    Args:
        checks: its checks.
        noise_floor: that it measured.
        width: maximum number of columns, 60 or more.
    """
    return plain_text(lambda console: show(checks, noise_floor, console), width)


def show(checks: Sequence[MachineCheck], noise_floor: float | None, console: Console) -> None:
    """Write an examination to a rich console.

    Args:
        checks: its checks.
        noise_floor: that it measured.
        console: to write to.
    """
    from rich.table import Table

    widen(console)
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        finding = styled(check.finding)
        if check.remedy:
            finding += styled_lines("\n") + styled(check.remedy, "italic")
        mark = styled(_MARKS[check.state], style=_STYLES[check.state])
        table.add_row(mark, styled(check.subject, style="bold"), finding)
    console.print(table)
    console.print()
    console.print(styled(summary(checks, noise_floor)))


def summary(checks: Sequence[MachineCheck], noise_floor: float | None) -> str:
    """A summary of an examination in one or two sentences.

    Args:
        checks: its checks.
        noise_floor: that it measured.
    """
    problems = [check.subject for check in checks if check.state is State.ATTENTION]
    need = "needs" if len(problems) == 1 else "need"
    summary_text = (
        f"{len(problems)} of {len(checks)} checks {need} attention: {', '.join(problems)}."
        if problems
        else "No check needs attention."
    )
    if noise_floor is None:
        return summary_text
    return (
        f"{summary_text} Run-to-run standard deviation: {noise_floor:.2%}; if only one replica "
        f"fits, pass the noise floor {noise_floor:.2g} to compare."
    )


def summary_lines(checks: Sequence[MachineCheck], noise_floor: float | None) -> Iterator[str]:
    """The summary, then a line for each check that needs attention.

    Args:
        checks: its checks.
        noise_floor: that it measured.
    """
    yield summary(checks, noise_floor)
    for check in checks:
        if check.state is State.ATTENTION:
            yield f"  {check.subject}: {check.finding}"
