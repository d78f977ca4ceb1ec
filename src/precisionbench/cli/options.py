"""Options that several commands have, with the same names and words everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from precisionbench.cli.completion import BackendSpec, RecordId
from precisionbench.cli.output import machine_output, set_debug

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

SPEC = BackendSpec()
RECORD_ID = RecordId()


def _claim_stdout(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    if as_json and not ctx.resilient_parsing:
        ctx.with_resource(machine_output(ctx))
    return as_json


def json_option(what: str = "it") -> Decorator[Any]:
    """`--json`: one document on standard output, and nothing else there.

    Args:
        what: is printed.
    """
    text = f"Print {what} as JSON; all else goes to standard error."
    return click.option("--json", "as_json", is_flag=True, callback=_claim_stdout, help=text)


def quiet_option() -> Decorator[Any]:
    """`--quiet`: no progress."""
    return click.option("--quiet", "-q", is_flag=True, help="Say nothing of the progress.")


def device_option() -> Decorator[Any]:
    """`--device`: where to measure."""
    text = "cpu, cuda, cuda:1, ... (default: the GPU where there is one)."
    return click.option("--device", help=text)


def wide_option() -> Decorator[Any]:
    """`--wide`: every column of the table."""
    text = "Show peak memory and energy, too, however narrow the terminal is."
    return click.option("--wide", is_flag=True, help=text)


def html_option() -> Decorator[Any]:
    """`--html`: the report."""
    text = "Write the report: one file for a browser."
    return click.option("--html", metavar="FILE", type=click.Path(), help=text)


def output_option(what: str) -> Decorator[Any]:
    """`--output`: where to save.

    Args:
        what: is saved.
    """
    text = f"Save {what} as JSON."
    return click.option("--output", "-o", metavar="FILE", type=click.Path(), help=text)


def overwrite_option(which: str) -> Decorator[Any]:
    """`--overwrite`: files that exist may be replaced.

    Args:
        which: options it is for.
    """
    text = f"Let {which} replace a file."
    return click.option("--overwrite", is_flag=True, help=text)


def _debug(ctx: click.Context, _: click.Parameter, debug: bool) -> None:
    if debug:
        set_debug(ctx)


def debug_option() -> click.Option:
    """`--debug`, which every command has."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_debug,
        envvar="PRECISIONBENCH_DEBUG",
        help="With an error, show how it came about.",
    )
