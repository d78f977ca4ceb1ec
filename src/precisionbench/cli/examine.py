"""`precisionbench examine`."""

from __future__ import annotations

import click

from precisionbench.cli.exit_codes import exit_codes_text
from precisionbench.cli.options import device_option, json_option, quiet_option
from precisionbench.cli.output import print_text, progress, write_json


@click.command(
    short_help="Measure this machine, and what stands in the way.",
    epilog=exit_codes_text(),
)
@device_option()
@click.option("--quick", is_flag=True, help="Leave out the trials of noise (about a minute).")
@click.option(
    "--replicas",
    type=click.IntRange(2, 32),
    default=3,
    show_default=True,
    help="Processes on each side of a trial.",
)
@json_option()
@quiet_option()
def examine(device: str | None, quick: bool, replicas: int, as_json: bool, quiet: bool) -> None:
    """Measure this machine: what it can do, how well it can be measured, what stands in the way.

    It compares small models with themselves in fresh processes, so that you know which speed-up
    is too small to be told here, and holds matmuls and copies against the device's peaks.

    \b
    Example:
      precisionbench examine
    """
    from precisionbench.doctor.examine import examine as examine_machine
    from precisionbench.doctor.text import show

    with progress(quiet) as on_progress:
        found = examine_machine(device, quick=quick, replicas=replicas, on_progress=on_progress)
    if as_json:
        write_json(found.to_json())
    else:
        print_text(
            str(found), lambda console: show(found.checks, found.readings.noise_floor, console)
        )
