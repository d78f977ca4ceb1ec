"""What commands that measure do so that nothing is lost: outputs checked first, and a journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from precisionbench.cli.exits import Interrupted


def check_outputs(output: str | None, html: str | None, overwrite: bool) -> None:
    """Refuse now what could not be written after minutes of measuring.

    Args:
        output: as `--output` gave it.
        html: as `--html` gave it.
        overwrite: replace files that exist.

    Raises:
        OutputError: one of them could not be written.
        UsageError: both are the same file, or there is none to overwrite.
    """
    from precisionbench.results import json_format

    named = [path for path in (output, html) if path is not None]
    if overwrite and not named:
        raise click.UsageError("--overwrite belongs to --output and --html; add one")
    for path in named:
        json_format.check_writable(path, overwrite)
    if len({os.path.realpath(path) for path in named}) < len(named):
        raise click.UsageError("--output and --html name the same file; give two")


@contextmanager
def journal_beside(output: str | None) -> Iterator[Path | None]:
    """Where blocks are written as they are finished; after an interrupt, say where they are.

    Args:
        output: as `--output` gave it; without one there is no journal.

    Raises:
        Interrupted: with what is kept.
    """
    from precisionbench.results.journal import free_name

    journal = None if output is None else free_name(Path(output))
    try:
        yield journal
    except KeyboardInterrupt:
        raise Interrupted(_what_is_kept(journal)) from None


def _what_is_kept(journal: Path | None) -> str:
    from precisionbench.comparison import load
    from precisionbench.errors import PrecisionBenchError

    if journal is None:
        return "nothing is kept; with --output, finished rounds are"
    try:
        kept = len(load(journal))
    except PrecisionBenchError:  # no round was finished
        kept = 0
    if kept:
        return f"finished rounds are kept; precisionbench show {str(journal)!r} has them"
    journal.unlink(missing_ok=True)
    return "no round was finished, so nothing is kept"
