"""What commands have in common: results to standard output, all else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from precisionbench.comparison import Comparison
    from precisionbench.runner import Progress
    from precisionbench.thresholds import Threshold

# Exit codes; 0 is fine.
THRESHOLD_MISSED = 1  # a threshold was missed, or a gate is broken
BAD_USAGE = 2
NOTHING_MEASURED = 3

fail_under_option = click.option(
    "--fail-under",
    multiple=True,
    metavar="THRESHOLD",
    help="End with 1 unless it holds: 'half>=1.5' (the lower end of the speed-up's interval) or "
    "'half error<=0.01' (again for each).",
)


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """The table, or everything as JSON."""
    if as_json:
        click.echo(comparison.to_json(), nl=False)
        return
    from precisionbench.report.text import show as show_table

    print_text(str(comparison), lambda console: show_table(comparison.data, console))


def print_text(plain: str, show_on: Callable[[Console], None]) -> None:
    """In colour on a terminal; a pipe or a file gets plain text, 80 columns wide."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        show_on(console)
    else:
        click.echo(plain)


def end_where_missed(wanted: Sequence[Threshold], comparison: Comparison) -> None:
    """One sentence for each threshold that is missed, and the exit code that says so."""
    from precisionbench import thresholds

    found = thresholds.missed(wanted, comparison)
    for sentence in found:
        click.echo(sentence, err=True)
    if found:
        sys.exit(THRESHOLD_MISSED)


def print_json(format: str, data: Any) -> None:
    """A document of its own format and version, for machines."""
    from precisionbench import storage

    document = {"format": format, "version": 1, **storage.unstructured(data)}
    click.echo(json.dumps(document, indent=1, allow_nan=False))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


@contextmanager
def progress() -> Iterator[Any]:
    """Say on standard error what is being measured: a live line on a terminal, else one a row."""
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    if not _is_terminal(sys.stderr):
        yield _log
        return
    console = Console(stderr=True, highlight=False, emoji=False)
    spinner = Spinner("dots", "looking at the model")
    with Live(spinner, console=console, transient=True) as live:

        def tell(progress: Progress) -> None:
            if progress.stage == "failed":
                console.print(
                    f"{progress.backend}: {progress.message}", markup=False, style="yellow"
                )
            spinner.update(text=Text(_progress_text(progress)))
            live.refresh()

        yield tell


def _progress_text(progress: Progress) -> str:
    if progress.backend:
        where = f"[{progress.position}/{progress.total}]"
        return f"{where} {progress.backend}: {progress.stage}"
    left = "" if progress.remaining_s is None else f", about {progress.remaining_s:.0f} s left"
    return f"round {progress.position}{left}"


def _log(progress: Progress) -> None:
    if progress.stage in ("done", "failed"):
        reason = f": {progress.message}" if progress.message else ""
        where = f"[{progress.position}/{progress.total}]"
        print(f"{where} {progress.backend} {progress.stage}{reason}", file=sys.stderr)
