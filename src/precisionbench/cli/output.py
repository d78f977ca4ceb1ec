"""What commands have in common: results to standard output, all else to standard error.

Results are printed, not echoed: click would write UTF-8 where the terminal is said to know ASCII
only.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from precisionbench.cli.exits import THRESHOLD_MISSED

if TYPE_CHECKING:
    from rich.console import Console

    from precisionbench.comparison import Comparison
    from precisionbench.results.progress import OnProgress, Progress
    from precisionbench.testing.thresholds import Threshold

_MACHINE = "precisionbench.machine"  # in the context: where JSON goes
_DEBUG = "precisionbench.debug"
_INTERRUPTED = "precisionbench.interrupted"
_MOST_READABLE = 100  # columns of prose

fail_under_option = click.option(
    "--fail-under",
    multiple=True,
    metavar="THRESHOLD",
    help="End with 1 unless it holds: 'half>=1.5' (the lower end of the speed-up's interval) or "
    "'half error<=0.01' (again for each).",
)


def print_comparison(comparison: Comparison, as_json: bool, wide: bool = False) -> None:
    """The table, or everything as JSON."""
    if as_json:
        write_json(comparison.to_json())
        return
    from precisionbench.report.text import show, to_text

    data = comparison.data
    print_text(
        lambda width: to_text(data, width, wide=wide),
        lambda console: show(data, console, wide=wide),
    )


def print_text(plain: str | Callable[[int], str], show_on: Callable[[Console], None]) -> None:
    """In colour and as wide as the terminal; a pipe or a file gets plain text of 80 columns.

    Args:
        plain: the text, or what makes it for a width.
        show_on: writes to a console.
    """
    from rich.console import Console

    from precisionbench.report.plain import WIDTH

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        show_on(console)
    else:
        print(plain if isinstance(plain, str) else plain(WIDTH))


def print_prose(text: Callable[[int], str]) -> None:
    """Text that is as wide as the terminal, within what can be read.

    Args:
        text: makes it for a width.
    """
    from rich.console import Console

    from precisionbench.report.plain import MIN_WIDTH, WIDTH

    console = Console()
    width = console.width if console.is_terminal else WIDTH
    print(text(min(max(width, MIN_WIDTH), _MOST_READABLE)))


def end_where_missed(wanted: Sequence[Threshold], comparison: Comparison) -> None:
    """One sentence for each threshold that is missed, and the exit code that says so."""
    from precisionbench.testing import thresholds

    found = thresholds.missed(wanted, comparison)
    for sentence in found:
        click.echo(sentence, err=True)
    if found:
        sys.exit(THRESHOLD_MISSED)


def print_json(format: str, data: Any) -> None:
    """A document of its own format and version, for machines."""
    from precisionbench.results import json_format

    document = {"format": format, "version": 1, **json_format.unstructured(data)}
    write_json(json.dumps(document, indent=1, allow_nan=False))


def write_json(text: str) -> None:
    """Write a document where nothing else is written."""
    stream = click.get_current_context().meta.get(_MACHINE, sys.stdout)
    assert stream is not None
    stream.write(text if text.endswith("\n") else f"{text}\n")
    stream.flush()


@contextlib.contextmanager
def machine_output(ctx: click.Context) -> Iterator[None]:
    """Keep standard output for one document: all that anybody else prints goes to standard error.

    What native code prints, too: models and plugins do not know whom they talk to.
    """
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        ctx.meta[_MACHINE] = stack.enter_context(_own_descriptor(out))
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = out


@contextlib.contextmanager
def _own_descriptor(out: TextIO) -> Iterator[TextIO]:
    """A stream that goes where file descriptor 1 went, which goes to standard error meanwhile."""
    try:
        out.flush()
        own = os.dup(out.fileno()) if out.fileno() == 1 else None
        if own is not None:
            os.dup2(2, 1)
    except (OSError, AttributeError, io.UnsupportedOperation):  # closed, or no real stream
        own = None
    if own is None:
        yield out
        return
    try:
        with open(own, "w", encoding="utf-8", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(own, 1)
        os.close(own)


def set_debug(ctx: click.Context) -> None:
    """Let errors show how they came about."""
    ctx.meta[_DEBUG] = True


def print_chain(error: BaseException) -> None:
    """With --debug, the error with all that led to it, worker processes included."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.meta.get(_DEBUG):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def print_chains(comparison: Comparison) -> None:
    """The same for rows that failed."""
    for failure in comparison.failures:
        try:
            comparison[failure.backend]
        except Exception as exc:
            print_chain(exc)


def was_interrupted(ctx: click.Context) -> bool:
    """Whether a Ctrl-C has cut short what was measured, although there is something to show."""
    return bool(ctx.meta.get(_INTERRUPTED))


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[OnProgress]:
    """Say on standard error what is being measured, and keep in mind whether it was interrupted.

    Args:
        quiet: say nothing.
    """
    meta = click.get_current_context().meta
    with _display(quiet) as show:

        def tell(progress: Progress) -> None:
            if progress.stage == "interrupted":
                meta[_INTERRUPTED] = True
            show(progress)

        yield tell


@contextlib.contextmanager
def _display(quiet: bool) -> Iterator[OnProgress]:
    if quiet:
        yield lambda _: None
        return
    from precisionbench.report.progress import progress_display

    with progress_display() as on_progress:
        yield on_progress
