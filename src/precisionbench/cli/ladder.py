"""`precisionbench ladder`."""

from __future__ import annotations

import click

from precisionbench.cli.output import print_json, progress


@click.command()
@click.argument("model")
@click.option("--to", metavar="ID", help="A published number to climb to; see `published`.")
@click.option("--start", default="eager", show_default=True, metavar="SPEC")
@click.option("--batch-size", type=click.IntRange(min=1), help="Items in one call.")
@click.option("--device", help="cpu, cuda, cuda:1, ... (default: the GPU where there is one).")
@click.option("--replicas", type=click.IntRange(1, 64), help="Fresh processes of each row.")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights and inputs (default: drawn).")
@click.option("--budget", "budget_s", type=float, metavar="SECONDS", help="To measure in, in all.")
@click.option("--evidence/--no-evidence", default=False, help="See what runs in each row, too.")
@click.option("--output", "-o", metavar="FILE", help="Save the measured rows as JSON.")
@click.option("--html", metavar="FILE", help="Write the report: one file for a browser.")
@click.option("--overwrite", is_flag=True, help="Let --output and --html replace files.")
@click.option("--json", "as_json", is_flag=True, help="Print the rungs and the gap as JSON.")
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
) -> None:
    """Climb from a row of MODEL to the fastest one here, one change at a time, and on to a
    published number.

    \b
    Example:
      precisionbench ladder torchvision:resnet50 --batch-size 100 \\
        --to mlperf-v4.1-h200-resnet50-offline
    """
    from precisionbench import storage
    from precisionbench.climbing.ladder import ladder as climb

    for path in filter(None, (output, html)):
        storage.check_writable(path, overwrite)
    with progress() as on_progress:
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
        )
    if as_json:
        print_json("precisionbench.ladder", found.as_data())
    else:
        click.echo(str(found))
    if output is not None:
        found.save(output, overwrite=overwrite)
    if html is not None:
        found.to_html(html, overwrite=overwrite)
