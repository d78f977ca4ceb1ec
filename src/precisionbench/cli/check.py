"""`precisionbench check`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.exit_codes import (
    INTERRUPTED,
    NOTHING_MEASURED,
    THRESHOLD_MISSED,
    exit_codes_text,
)
from precisionbench.cli.options import json_option, seconds_option
from precisionbench.cli.output import print_json, print_prose

if TYPE_CHECKING:
    from precisionbench.scriptcheck.violations import CheckData


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run your own benchmark script and report its problems.",
    epilog=exit_codes_text("a problem was found", "the script did not finish, or called no model"),
)
@seconds_option("--timeout", "timeout_s", help="Stop the script after this time.")
@json_option()
@click.argument("script", type=AnyFile())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def check(timeout_s: float | None, as_json: bool, script: str, args: tuple[str, ...]) -> None:
    """Run a benchmark SCRIPT unchanged, and report what makes its numbers wrong.

    For example: the clock is read before the GPU has finished, Apex O1 has patched torch for a
    later model, there is no warm-up. Arguments after SCRIPT are passed to it; its output goes to
    stderr.

    \b
    Example:
      precisionbench check my_benchmark.py --batch 64
      precisionbench check --json my_benchmark.py --batch 64
    """
    from precisionbench.scriptcheck.check import check as run
    from precisionbench.scriptcheck.text import to_text

    found = run(script, args, timeout_s=timeout_s)
    if as_json:
        print_json("precisionbench.check", found)
    else:
        print_prose(partial(to_text, found))
    sys.exit(_exit_code(found))


def _exit_code(found: CheckData) -> int:
    if found.ending.kind == "interrupted":
        return INTERRUPTED
    if found.broken:
        return THRESHOLD_MISSED
    return 0 if found.models and found.ending.is_complete else NOTHING_MEASURED
