"""The files of a measuring command: checked before the run, and a journal during it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from precisionbench._internal.termination import Terminated
from precisionbench.cli.exit_codes import Interrupted

if TYPE_CHECKING:
    from precisionbench.comparison import ComparisonFiles
    from precisionbench.diagnosis.findings import DiagnosisData


class ResultFiles(NamedTuple):
    """The files that a command was asked to write.

    Attributes:
        output: value of `--output`.
        html: value of `--html`.
        overwrite: whether files that exist are replaced.
    """

    output: str | None
    html: str | None
    overwrite: bool

    def check(self) -> None:
        """Refuse before the run what could not be written after it.

        Raises:
            OutputError: one of the files cannot be written.
            UsageError: both are the same file, or there is none to overwrite.
        """
        from precisionbench.results import json_format

        named = [path for path in (self.output, self.html) if path is not None]
        if self.overwrite and not named:
            raise click.UsageError("--overwrite belongs to --output and --html; add one")
        for path in named:
            json_format.check_writable(path, self.overwrite)
        if len({os.path.realpath(path) for path in named}) < len(named):
            raise click.UsageError("--output and --html name the same file; give two")

    @contextmanager
    def journal(self) -> Iterator[Path | None]:
        """The journal of a run beside its output; None without `--output`.

        Raises:
            Interrupted: Ctrl-C was pressed; the message says what the journal holds.
            Terminated: likewise for SIGTERM.
        """
        from precisionbench.results.journal import free_name

        journal = None if self.output is None else free_name(Path(self.output))
        try:
            yield journal
        except KeyboardInterrupt:
            raise Interrupted(_what_is_saved(journal)) from None
        except Terminated as exc:
            exc.kept = _what_is_saved(journal)
            raise

    def save(self, result: ComparisonFiles, journal: Path | None) -> None:
        """Write the result file; the journal is not needed any more then."""
        if self.output is not None:
            result.save(self.output, overwrite=self.overwrite)
            if journal is not None:
                journal.unlink(missing_ok=True)

    def write_report(self, result: ComparisonFiles, diagnosis: DiagnosisData | None = None) -> None:
        """Write the HTML report."""
        if self.html is not None:
            result.to_html(self.html, overwrite=self.overwrite, diagnosis=diagnosis)


def _what_is_saved(journal: Path | None) -> str:
    from precisionbench.comparison import load
    from precisionbench.errors import PrecisionBenchError

    if journal is None:
        return "nothing is kept; with --output, finished rounds are"
    try:
        rows = len(load(journal))
    except PrecisionBenchError:  # no round was finished
        rows = 0
    if rows:
        return f"finished rounds are kept; precisionbench show {str(journal)!r} has them"
    journal.unlink(missing_ok=True)
    return "no round was finished, so nothing is kept"
