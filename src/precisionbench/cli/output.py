"""Output of all commands: results to stdout, everything else to stderr.

Results are printed, not echoed: click would write UTF-8 to a terminal whose encoding is ASCII.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import click

from precisionbench import safe_text
from precisionbench.errors import traceback_of

if TYPE_CHECKING:
    from rich.console import Console

    from precisionbench.comparison import Comparison
    from precisionbench.results.progress import OnProgress, Progress

# Keys of the context's `meta`.
_JSON_STREAM = "precisionbench.json_stream"
_DEBUG = "precisionbench.debug"
_INTERRUPTED = "precisionbench.interrupted"
_LINES_BELOW = 6  # of a terminal: where a comparison was saved, the next step, and the prompt
_MAX_TEXT_WIDTH = 100  # columns of running text


# Results


def print_comparison(
    comparison: Comparison, as_json: bool, wide: bool = False, file: str | None = None
) -> None:
    """Print the table, or everything as JSON.

    Where the text is longer than the terminal, its first sentence is repeated at the end.

    Args:
        comparison: to print.
        as_json: print all of it as JSON.
        wide: show every column.
        file: what `show` finds it by, for the command that shows all notes; None shows them.
    """
    if as_json:
        write_json(comparison.to_json())
        return
    from precisionbench.report.headline import headline
    from precisionbench.report.text import show, to_text

    data, all_notes = comparison.data, f"precisionbench show {file} --all" if file else ""
    text = partial(to_text, data, wide=wide, all_notes=all_notes)
    show_on = partial(show, data, wide=wide, all_notes=all_notes)
    print_long_text(text, show_on, partial(headline, data))


def print_long_text(
    plain: Callable[[int], str], show_on: Callable[[Console], None], headline: Callable[[], str]
) -> None:
    """Print as `print_text` does; where it is longer than the terminal, end with the headline.

    Args:
        plain: as for `print_text`.
        show_on: as for `print_text`.
        headline: gives the first sentence of the text.
    """
    from precisionbench.report.plain import paragraph

    def show_with_end(console: Console) -> None:
        show_on(console)
        if plain(console.width).count("\n") >= console.height - _LINES_BELOW:
            console.print()
            console.print(paragraph(headline(), console.width, "bold"))

    print_text(plain, show_with_end)


def print_text(plain: str | Callable[[int], str], show_on: Callable[[Console], None]) -> None:
    """Print in colour and as wide as the terminal; without a terminal, plain with 80 columns.

    Args:
        plain: the text, or a function of the width that makes it.
        show_on: writes to a console.
    """
    from rich.console import Console

    from precisionbench.report.plain import WIDTH

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        show_on(console)
    else:
        print_lines(plain if isinstance(plain, str) else plain(WIDTH))


def print_prose(text: Callable[[int], str]) -> None:
    """Print running text as wide as the terminal, within a readable width.

    Args:
        text: makes it for a width.
    """
    from rich.console import Console

    from precisionbench.report.plain import MIN_WIDTH, WIDTH

    console = Console()
    width = console.width if console.is_terminal else WIDTH
    print_lines(text(min(max(width, MIN_WIDTH), _MAX_TEXT_WIDTH)))


def print_lines(text: str) -> None:
    """Print text that is broken into lines already, of which everything is visible.

    Args:
        text: to print.
    """
    print(safe_text.lines(text))


def complain(text: str) -> None:
    """Print a sentence to stderr, of which everything is visible.

    Args:
        text: the sentence, or several lines.
    """
    click.echo(safe_text.lines(text), err=True)


def say_saved(file: str) -> None:
    """Print where a file was written, to stderr.

    Args:
        file: its path, as the user gave it.
    """
    complain(f"Saved to {file}")


# JSON


def print_json(format: str, data: Any) -> None:
    """Print a document of its own format, version 1."""
    from precisionbench.results import json_format

    document = {"format": format, "version": 1, **json_format.unstructured(data)}
    write_json(json.dumps(document, indent=1, allow_nan=False))


def write_json(text: str) -> None:
    """Write a document to the stream that `claim_stdout` reserved."""
    stream = click.get_current_context().meta.get(_JSON_STREAM, sys.stdout)
    assert stream is not None
    stream.write(text if text.endswith("\n") else f"{text}\n")
    stream.flush()


@contextlib.contextmanager
def claim_stdout(ctx: click.Context) -> Iterator[None]:
    """Reserve stdout for one document; everything else is written to stderr.

    This includes what models and plugins print, also from native code.
    """
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        ctx.meta[_JSON_STREAM] = stack.enter_context(_own_descriptor(out))
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = out


@contextlib.contextmanager
def _own_descriptor(out: TextIO) -> Iterator[TextIO]:
    """A stream to where file descriptor 1 pointed; the descriptor points to stderr meanwhile."""
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


# Tracebacks


def show_tracebacks(ctx: click.Context) -> None:
    """Let `print_traceback` print in this context."""
    ctx.meta[_DEBUG] = True


def print_traceback(error: BaseException) -> None:
    """With --debug, print the error with its causes, those of worker processes included."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.meta.get(_DEBUG):
        complain(traceback_of(error).rstrip("\n"))


def print_tracebacks_of_rows(comparison: Comparison) -> None:
    """With --debug, print the errors of rows that failed."""
    for failure in comparison.failures:
        try:
            comparison[failure.backend]
        except Exception as exc:
            print_traceback(exc)


# Progress


def was_interrupted(ctx: click.Context) -> bool:
    """Whether Ctrl-C ended a run early that has results nevertheless."""
    return bool(ctx.meta.get(_INTERRUPTED))


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[OnProgress]:
    """Show progress on stderr, and record whether the run was interrupted.

    Args:
        quiet: show nothing.
    """
    meta = click.get_current_context().meta
    with _display(quiet) as show:

        def on_progress(progress: Progress) -> None:
            if progress.stage == "interrupted":
                meta[_INTERRUPTED] = True
            show(progress)

        yield on_progress


@contextlib.contextmanager
def _display(quiet: bool) -> Iterator[OnProgress]:
    if quiet:
        yield lambda _: None
        return
    from precisionbench.report.progress import progress_display

    with progress_display() as on_progress:
        yield on_progress
