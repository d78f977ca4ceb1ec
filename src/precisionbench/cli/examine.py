"""`precisionbench examine`."""

from __future__ import annotations

import click

from precisionbench.cli.exit_codes import exit_codes_text
from precisionbench.cli.options import device_option, json_option, quiet_option
from precisionbench.cli.output import print_text, progress, write_json


@click.command(
    short_help="Check this machine: peaks, noise, and what needs attention.",
    epilog=exit_codes_text(),
)
@device_option()
@click.option("--quick", is_flag=True, help="Skip the noise trials (about a minute).")
@click.option(
    "--replicas",
    type=click.IntRange(2, 32),
    default=3,
    show_default=True,
    help="Worker processes of each side of a noise trial.",
)
@json_option()
@quiet_option()
def examine(device: str | None, quick: bool, replicas: int, as_json: bool, quiet: bool) -> None:
    """Check this machine: its speed, its noise, and what needs attention before measuring.

    It compares small models with themselves in fresh processes, which gives the smallest speed-up
    that can be detected here, and compares matmuls and copies with the device's peaks.

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
