"""`precisionbench published`."""

from __future__ import annotations

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.exit_codes import INTERNAL_ERROR, exit_codes_text
from precisionbench.cli.options import json_option, record_option
from precisionbench.cli.output import print_lines, print_text, write_json


@click.command(
    short_help="List numbers that others published.",
    epilog=exit_codes_text(three=INTERNAL_ERROR),
)
@click.option("--device", metavar="NAME", help="Such as 'agx xavier', h200, a100.")
@click.option("--model", metavar="NAME", help="Such as resnet50, or 'ResNet-50 v1.5'.")
@click.option("--precision", metavar="NAME", help="Such as int8 or fp16.")
@record_option("--id", "Show one record in full, and compare it with the device's peaks.")
@click.option("--file", type=AnyFile(), metavar="FILE", help="A TOML file with further records.")
@json_option("the records")
def published(
    device: str | None,
    model: str | None,
    precision: str | None,
    id: str | None,
    file: str | None,
    as_json: bool,
) -> None:
    """List numbers that others published, with their conditions, without GPU and torch.

    None of them was measured here; the status of each says how well it is documented.

    \b
    Example:
      precisionbench published --device "agx xavier" --model resnet50
    """
    from precisionbench.published import find, get
    from precisionbench.published.search import what_exists
    from precisionbench.report import published as report

    if id is not None and (device or model or precision):
        raise click.UsageError("--id names one record; omit --device, --model and --precision")
    found = (get(id, file=file),) if id else find(device, model, precision, file=file)
    if as_json:
        write_json(report.to_json(found))
    elif id:
        print_text(
            lambda width: report.card_text(found[0], width),
            lambda console: report.show_card(found[0], console),
        )
    elif found:
        print_text(
            lambda width: report.to_text(found, width),
            lambda console: report.show(found, console),
        )
    else:
        print_lines(what_exists(device, model, precision, file=file))
