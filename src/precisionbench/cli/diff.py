"""`precisionbench diff`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
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

    Both may be folders of studies: cells that both have are compared, and intervals and verdicts
    are simultaneous over the rows of all cells.

    Runs whose conditions differ in what changes times (the GPU, its power mode or driver, the
    batch, torch, ...) are refused; the error names each difference.

    \b
    Example:
      precisionbench diff main.json branch.json --fail-if-slower
      precisionbench diff last~1 last
      precisionbench diff study-main study-branch
    """
    missed = (_diff_studies if _are_studies(old, new) else _diff_files)(old, new, force, as_json)
    if fail_if_slower and missed:
        complain(missed)
        sys.exit(THRESHOLD_MISSED)


def _are_studies(old: str, new: str) -> bool:
    files = [path for path in (old, new) if not _is_study(path)]
    if len(files) == 1:
        raise click.UsageError(f"{files[0]!r} is not a folder; give two folders or two files")
    return not files


def _is_study(path: str) -> bool:
    try:
        return path.endswith(".toml") or (path != "" and Path(path).is_dir())
    except (OSError, ValueError):  # no file can have this name, which reading it explains
        return False


def _diff_files(old: str, new: str, force: bool, as_json: bool) -> str:
    """Compare two result files, and print the difference; gives why the newer does not pass."""
    from precisionbench.comparison import load
    from precisionbench.report.run_diff import show, to_text

    found = load(new).diff(load(old), force=force)
    if as_json:
        print_json("precisionbench.difference", found)
    else:
        print_text(partial(to_text, found), partial(show, found))
    return _missed(found)


def _diff_studies(old: str, new: str, force: bool, as_json: bool) -> str:
    """The same for two folders of studies."""
    from precisionbench.report.study_diff import show, to_text
    from precisionbench.studies.results import load_study

    found = load_study(new).diff(old, force)
    if as_json:
        print_json("precisionbench.study_difference", found)
    else:
        print_text(partial(to_text, found), partial(show, found))
    if found.slower:
        rows = [f"{row.backend} of {cell.title}" for cell, row in found.slower]
        return f"slower than before: {'; '.join(rows)}"
    if found.failing:
        return f"measured before and failing now: {'; '.join(found.failing)}"
    return "" if found.cells else "no cell was measured in both studies"


def _missed(found: Difference) -> str:
    """Why a newer run does not pass; empty where it does. An inconclusive difference passes."""
    if found.slower:
        return f"slower than before: {', '.join(row.backend for row in found.slower)}"
    if found.broken:
        return f"measured before and failing now: {', '.join(found.broken)}"
    return "" if found.rows else "no row was measured in both runs"
