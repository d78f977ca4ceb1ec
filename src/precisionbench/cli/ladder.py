"""`precisionbench ladder`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from precisionbench.cli.exits import exit_codes
from precisionbench.cli.options import (
    RECORD_ID,
    SPEC,
    device_option,
    html_option,
    json_option,
    output_option,
    overwrite_option,
    quiet_option,
)
from precisionbench.cli.output import (
    print_chains,
    print_json,
    print_prose,
    progress,
)
from precisionbench.cli.saving import check_outputs, journal_beside

if TYPE_CHECKING:
    from precisionbench.workflows.ladder import Ladder


@click.command(
    short_help="Climb to the fastest row, one change at a time.",
    epilog=exit_codes(),
)
@click.argument("model")
@click.option(
    "--to", type=RECORD_ID, metavar="ID", help="A published number to climb to; see `published`."
)
@click.option(
    "--start",
    type=SPEC,
    default="eager",
    show_default=True,
    metavar="SPEC",
    help="The row at the bottom.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Items in one call.")
@device_option()
@click.option("--replicas", type=click.IntRange(1, 64), help="Fresh processes of each row.")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights and inputs (default: drawn).")
@click.option("--budget", "budget_s", type=float, metavar="SECONDS", help="To measure in, in all.")
@click.option("--evidence/--no-evidence", default=False, help="See what runs in each row, too.")
@output_option("the measured rows")
@html_option()
@overwrite_option("--output and --html")
@json_option("the rungs and the gap")
@quiet_option()
def ladder(
    model: str,
    to: str | None,
    start: str,
    batch_size: int | None,
    device: str | None,
    replicas: int | None,
    seed: int | None,
    budget_s: float | None,
    evidence: bool,
    output: str | None,
    html: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Climb from a row of MODEL to the fastest one here, one change at a time, and on to a
    published number.

    \b
    Example:
      precisionbench ladder torchvision:resnet50 --batch-size 100 \\
        --to mlperf-v4.1-h200-resnet50-offline
    """
    from precisionbench.workflows.ladder import ladder as climb

    check_outputs(output, html, overwrite)
    with journal_beside(output) as journal, progress(quiet) as on_progress:
        found = climb(
            model,
            to=to,
            start=start,
            batch_size=batch_size,
            device=device,
            replicas=replicas,
            seed=seed,
            budget_s=budget_s,
            evidence=evidence,
            on_progress=on_progress,
            journal=journal,
        )
    with contextlib.ExitStack() as stack:
        # a full disk must not take the figures with it, nor a closed pipe the file
        stack.callback(_print, found, as_json)
        if output is not None:
            found.save(output, overwrite=overwrite)
            if journal is not None:  # it has done its duty
                journal.unlink(missing_ok=True)
        if html is not None:
            found.to_html(html, overwrite=overwrite)


def _print(found: Ladder, as_json: bool) -> None:
    print_chains(found.comparison)
    if as_json:
        print_json("precisionbench.ladder", found.as_data())
    else:
        print_prose(found.to_text)
