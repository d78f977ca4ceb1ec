"""`precisionbench check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from precisionbench.cli.output import NOTHING_MEASURED, THRESHOLD_MISSED, print_json

if TYPE_CHECKING:
    from precisionbench.checking.breaches import CheckData


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End it after this.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def check(timeout_s: float | None, as_json: bool, script: str, args: tuple[str, ...]) -> None:
    """Run a benchmark SCRIPT of your own as it is, and say which validity gates it breaks.

    Such as: the clock is read before the GPU is done, Apex O1 has patched torch for a later model,
    no warm-up. What comes after SCRIPT goes to it; what it prints goes to standard error.

    Exit codes: 0 nothing broken, 1 a gate is broken or it was interrupted, 2 no such script, 3 it
    could not be seen to its end.

    \b
    Example:
      precisionbench check my_benchmark.py --batch 64
    """
    from precisionbench.checking.running import check as run

    found = run(script, args, timeout_s=timeout_s)
    if as_json:
        print_json("precisionbench.check", found)
    else:
        click.echo(str(found))
    sys.exit(_check_status(found))


def _check_status(found: CheckData) -> int:
    if found.broken or found.ending.kind == "interrupted":
        return THRESHOLD_MISSED
    return 0 if found.models and found.ending.is_whole else NOTHING_MEASURED
