"""`--fail-under`: thresholds of a command, and the exit code where one is missed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from precisionbench.cli.exit_codes import INTERRUPTED, THRESHOLD_MISSED
from precisionbench.cli.output import complain, was_interrupted
from precisionbench.errors import RowNotFoundError

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.testing.thresholds import Threshold

fail_under_option = click.option(
    "--fail-under",
    multiple=True,
    metavar="THRESHOLD",
    help="Exit with 1 if not met: 'half>=1.5' (the lower end of the speed-up's interval) or "
    "'half error<=0.01' (repeatable).",
)


def exit_if_missed(
    thresholds: Sequence[Threshold], comparison: Comparison, were_planned: bool = False
) -> None:
    """Print a sentence for each threshold that is missed, and exit with the code for it.

    A run that was interrupted exits with the code of that.

    Args:
        thresholds: as `parse` returns them.
        comparison: as measured.
        were_planned: whether the thresholds' rows were checked before measuring; a default row that
            is missing then was left out, and has missed its threshold.
    """
    why = [why_missed(threshold, comparison, were_planned) for threshold in thresholds]
    sentences = [sentence for sentence in why if sentence]
    for sentence in sentences:
        complain(sentence)
    if sentences:
        ctx = click.get_current_context(silent=True)
        sys.exit(INTERRUPTED if ctx and was_interrupted(ctx) else THRESHOLD_MISSED)


def why_missed(threshold: Threshold, comparison: Comparison, was_planned: bool) -> str:
    """Why a comparison misses a threshold, in a sentence; empty if it does not.

    Args:
        threshold: as `parse` returns it.
        comparison: as measured.
        was_planned: whether a row that is missing has missed its threshold.
    """
    try:
        return threshold.missed_by(comparison)
    except RowNotFoundError:
        if not was_planned:
            raise
        return f"{threshold.row} was not measured; name it to measure it (-b {threshold.row})"
