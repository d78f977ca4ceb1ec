"""`precisionbench backends`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from precisionbench.cli.exit_codes import INTERNAL_ERROR, exit_codes_text
from precisionbench.cli.options import json_option
from precisionbench.cli.output import print_json, print_text

if TYPE_CHECKING:
    from rich.console import Console

    from precisionbench.backends.discovery import BackendInfo


@click.command(
    short_help="List backends, their options, and what is missing.",
    epilog=exit_codes_text(three=INTERNAL_ERROR),
)
@json_option("the list")
def backends(as_json: bool) -> None:
    """List installed backends, their options, and what is missing.

    \b
    Example:
      precisionbench backends
    """
    from precisionbench.measure.availability import list_backends
    from precisionbench.report.plain import plain_text

    found = list_backends()
    if as_json:
        print_json("precisionbench.backends", {"backends": found})
    else:
        print_text(
            lambda width: plain_text(lambda console: _show(found, console), width),
            lambda console: _show(found, console),
        )


def _show(found: Sequence[BackendInfo], console: Console) -> None:
    from precisionbench.report.plain import print_list, styled
    from precisionbench.spec_syntax import ALIASES

    for info in found:
        state = "ready" if info.available else f"not here: needs {info.requirement}; {info.remedy}"
        console.print(styled(info.name, style="bold") + styled(f"  {info.summary}"), soft_wrap=True)
        print_list([state], console)
        for option, allowed in info.options.items():
            choices = allowed.replace(" or ", "|").replace("'", "")
            console.print(styled(f"    {option}={choices}"), soft_wrap=True)
    console.print(styled("aliases", style="bold"))
    for alias, spec in ALIASES.items():
        console.print(styled(f"    {alias} = {spec}"), soft_wrap=True)
