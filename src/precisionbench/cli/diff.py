"""`precisionbench diff`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from precisionbench.cli.completion import ResultFile
from precisionbench.cli.exit_codes import INTERNAL_ERROR, THRESHOLD_MISSED, exit_codes_text
from precisionbench.cli.options import json_option
from precisionbench.cli.output import complain, print_json, print_text

if TYPE_CHECKING:
    from precisionbench.analysis.run_diff import Difference


@click.command(
    short_help="Compare a newer result with an older one.",
    epilog=exit_codes_text("--fail-if-slower is not met", INTERNAL_ERROR),
)
@click.argument("old", type=ResultFile())
@click.argument("new", type=ResultFile())
@click.option(
    "--force", is_flag=True, help="Compare although conditions differ, and list the differences."
)
@click.option(
    "--fail-if-slower",
    is_flag=True,
    help="Exit with 1 if a row became slower, fails now, or nothing could be compared.",
)
@json_option()
def diff(old: str, new: str, force: bool, fail_if_slower: bool, as_json: bool) -> None:
    """Compare the result NEW with the result OLD, row by row, without GPU and torch.

    Runs whose conditions differ in what changes times (the GPU, its power mode or driver, the
    batch, torch, ...) are refused; the error names each difference.

    \b
    Example:
      precisionbench diff main.json branch.json --fail-if-slower
      precisionbench diff last~1 last
    """
    from precisionbench.comparison import load
    from precisionbench.report.run_diff import show as show_diff
    from precisionbench.report.run_diff import to_text

    found = load(new).diff(load(old), force=force)
    if as_json:
        print_json("precisionbench.difference", found)
    else:
        print_text(lambda width: to_text(found, width), lambda console: show_diff(found, console))
    if fail_if_slower and (missed := _missed(found)):
        complain(missed)
        sys.exit(THRESHOLD_MISSED)


def _missed(found: Difference) -> str:
    """Why a newer run does not pass; empty where it does. An inconclusive difference passes."""
    if found.slower:
        return f"slower than before: {', '.join(row.backend for row in found.slower)}"
    if found.broken:
        return f"measured before and failing now: {', '.join(found.broken)}"
    return "" if found.rows else "no row was measured in both runs"
