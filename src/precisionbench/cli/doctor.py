"""`precisionbench doctor`."""

from __future__ import annotations

import click

from precisionbench.cli.output import print_text, progress


@click.command()
@click.option("--device", help="cpu, cuda, cuda:1, ... (default: the GPU where there is one).")
@click.option("--quick", is_flag=True, help="Leave out the trials of noise (about a minute).")
@click.option(
    "--replicas",
    type=click.IntRange(2, 32),
    default=3,
    show_default=True,
    help="Processes on each side of a trial.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(device: str | None, quick: bool, replicas: int, as_json: bool) -> None:
    """Measure this machine: what it can do, how well it can be measured, what stands in the way.

    It compares small models with themselves in fresh processes, so that you know which speed-up
    is too small to be told here, and holds matmuls and copies against the device's peaks.

    \b
    Example:
      precisionbench doctor
    """
    from precisionbench.doctor.examining import examine
    from precisionbench.doctor.text import show

    with progress() as on_progress:
        found = examine(device, quick=quick, replicas=replicas, on_progress=on_progress)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        print_text(
            str(found), lambda console: show(found.checks, found.readings.noise_floor, console)
        )
