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

    Those that are ready come first.

    \b
    Example:
      precisionbench backends
    """
    from precisionbench.measure.availability import list_backends
    from precisionbench.report.plain import plain_text

    found = sorted(list_backends(), key=lambda info: not info.available)
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

    shared = _shared_options(found)
    for info in found:
        state = "ready" if info.available else _missing(info)
        console.print(styled(info.name, style="bold"), soft_wrap=True)
        print_list([info.summary, state], console)
        own = (one for one in info.options.items() if one not in shared)
        print_list((_option(*one) for one in own), console, 4)
    if shared:
        console.print(styled("options of every backend", style="bold"))
        print_list((_option(*one) for one in shared), console, 4)
    console.print(styled("aliases", style="bold"))
    print_list((f"{alias} = {spec}" for alias, spec in ALIASES.items()), console, 4)


def _shared_options(found: Sequence[BackendInfo]) -> list[tuple[str, str]]:
    """The options that all of several backends have, with the same values."""
    others = [info.options.items() for info in found if info.options]
    first = others[0] if len(others) > 1 else ()
    return [one for one in first if all(one in options for options in others)]


def _missing(info: BackendInfo) -> str:
    return f"not available: requires {info.requirement}; {info.remedy}"


def _option(name: str, allowed: str) -> str:
    """An option with its values, which end lines where there are too many of them."""
    return f"{name}={allowed.replace(' or ', ' | ').replace(chr(39), '')}"
