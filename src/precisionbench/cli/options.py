"""Options that several commands have, with the same names and the same help everywhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from precisionbench.cli.completion import AnyFile, BackendSpec, RecordId
from precisionbench.cli.output import claim_stdout, show_tracebacks
from precisionbench.cli.result_files import ResultFiles

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


if TYPE_CHECKING:
    FloatType = click.ParamType[float]
else:
    FloatType = click.ParamType  # generic from click 8.4 on


class Number(FloatType):
    """A finite number of at least 0, or above 0; the library checks the rest of its range."""

    name = "number"

    def __init__(self, what: str, example: str, above_0: bool = False) -> None:
        """What the number is, and how one is written, for the error."""
        self.what, self.example, self.above_0 = what, example, above_0

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """The number of the text."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf or (self.above_0 and number == 0):
            what = f"{self.what} above 0" if self.above_0 else f"{self.what} of 0 or more"
            is_or = "is infinite; it must be" if math.isinf(number) else "is not"
            self.fail(f"{value!r} {is_or} {what}; write it as {self.example}", param, ctx)
        return number


# What is measured


def spec_option(*names: str, **settings: Any) -> Decorator[Any]:
    """An option that takes a backend's spec.

    Args:
        names: as for `click.option`.
        settings: as for `click.option`.
    """
    return click.option(*names, type=BackendSpec(), metavar="SPEC", **settings)


def backends_option(help: str) -> Decorator[Any]:
    """`--backend`, which may be repeated.

    Args:
        help: what it selects.
    """
    return spec_option("--backend", "-b", "backends", multiple=True, help=help)


def record_option(name: str, help: str) -> Decorator[Any]:
    """An option that takes the id of a published number.

    Args:
        name: of the option.
        help: what the number is for.
    """
    return click.option(name, type=RecordId(), metavar="ID", help=help)


def device_option() -> Decorator[Any]:
    """`--device`: where to measure."""
    text = "cpu, cuda, cuda:1, ... (default: the GPU if there is one)."
    return click.option("--device", help=text)


# How it is measured


def replicas_option(of: str) -> Decorator[Any]:
    """`--replicas`: worker processes.

    Args:
        of: what each of them belongs to.
    """
    text = f"Worker processes of each {of}."
    return click.option("--replicas", type=click.IntRange(1, 64), help=text)


def seed_option(default: str = "a random one") -> Decorator[Any]:
    """`--seed`: of random numbers.

    Args:
        default: without it.
    """
    text = f"Random seed of weights and inputs (default: {default})."
    return click.option("--seed", type=click.IntRange(min=0), help=text)


def effort_options() -> Decorator[Any]:
    """`--effort`, and `--quick` for its first choice."""
    text = "How long and how precisely to measure; quick takes seconds.  [default: normal]"

    def decorate(command: Callable[..., Any]) -> Any:
        effort = click.option(
            "--effort", type=click.Choice(["quick", "normal", "thorough"]), help=text
        )
        quick = click.option("--quick", is_flag=True, help="The same as --effort quick.")

        @functools.wraps(command)
        def with_effort(effort: str | None, quick: bool, **given: Any) -> Any:
            if quick and effort not in (None, "quick"):
                raise click.UsageError(f"--quick and --effort {effort} exclude each other")
            return command(effort="quick" if quick else effort or "normal", **given)

        return effort(quick(with_effort))

    return decorate


def seconds_option(*names: str, help: str) -> Decorator[Any]:
    """An option that takes a number of seconds.

    Args:
        names: as for `click.option`.
        help: what it limits.
    """
    kind = Number("a number of seconds", "60", above_0=True)
    return click.option(*names, type=kind, metavar="SECONDS", help=help)


def budget_option() -> Decorator[Any]:
    """`--budget`: seconds for everything after building."""
    text = "Total time after building: rounds, passes and profiling.  [default: by --effort]"
    return seconds_option("--budget", "budget_s", help=text)


def evidence_option(default: bool | None, help: str) -> Decorator[Any]:
    """`--evidence` and `--no-evidence`: whether each row is profiled.

    Args:
        default: without either of them; None depends on the effort.
        help: when it is profiled.
    """
    return click.option("--evidence/--no-evidence", default=default, help=help)


def experiments_option(help: str) -> Decorator[Any]:
    """`--experiments`, which may be repeated.

    Args:
        help: what may be given.
    """
    return click.option("--experiments", multiple=True, metavar="NAME", help=help)


# What is printed and written


def _claim_stdout(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    if as_json and not ctx.resilient_parsing:
        ctx.with_resource(claim_stdout(ctx))
    return as_json


def json_option(what: str = "the result") -> Decorator[Any]:
    """`--json`: one document on stdout, and nothing else there.

    Args:
        what: is printed.
    """
    text = f"Print {what} as JSON; logs go to stderr."
    return click.option("--json", "as_json", is_flag=True, callback=_claim_stdout, help=text)


def quiet_option() -> Decorator[Any]:
    """`--quiet`: no progress output."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress output.")


def wide_option() -> Decorator[Any]:
    """`--wide`: every column of the table."""
    text = "Also show peak memory and energy, even on a narrow terminal."
    return click.option("--wide", is_flag=True, help=text)


def html_option() -> Decorator[Any]:
    """`--html`: the report."""
    text = "Write an HTML report: one self-contained file."
    return click.option("--html", metavar="FILE", type=AnyFile(), help=text)


def overwrite_option(which: str) -> Decorator[Any]:
    """`--overwrite`: files that exist may be replaced.

    Args:
        which: options it is for.
    """
    text = f"Let {which} replace an existing file."
    return click.option("--overwrite", is_flag=True, help=text)


def result_file_options(saved: str) -> Decorator[Any]:
    """`--output`, `--html` and `--overwrite`; the command gets them as `files`, a `ResultFiles`.

    Args:
        saved: what `--output` saves.
    """
    text = f"Save {saved} as JSON."
    options = (
        click.option("--output", "-o", metavar="FILE", type=AnyFile(), help=text),
        html_option(),
        overwrite_option("--output and --html"),
    )

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_files(**given: Any) -> Any:
            files = ResultFiles(*(given.pop(name) for name in ResultFiles._fields))
            return command(files=files, **given)

        return functools.reduce(lambda inner, option: option(inner), reversed(options), with_files)

    return decorate


def _debug(ctx: click.Context, _: click.Parameter, debug: bool) -> None:
    if debug:
        show_tracebacks(ctx)


def debug_option() -> click.Option:
    """`--debug`, which every command has."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_debug,
        envvar="PRECISIONBENCH_DEBUG",
        help="Show the traceback of an error.",
    )
