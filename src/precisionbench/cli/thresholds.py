"""`--fail-under`: thresholds of a command, and the exit code where one is missed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from precisionbench.cli.exit_codes import THRESHOLD_MISSED

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.testing.thresholds import Threshold

fail_under_option = click.option(
    "--fail-under",
    multiple=True,
    metavar="THRESHOLD",
    help="End with 1 unless it holds: 'half>=1.5' (the lower end of the speed-up's interval) or "
    "'half error<=0.01' (again for each).",
)


def exit_if_missed(thresholds: Sequence[Threshold], comparison: Comparison) -> None:
    """Print a sentence for each threshold that is missed, and exit with the code for it."""
    from precisionbench.testing.thresholds import missed

    sentences = missed(thresholds, comparison)
    for sentence in sentences:
        click.echo(sentence, err=True)
    if sentences:
        sys.exit(THRESHOLD_MISSED)
