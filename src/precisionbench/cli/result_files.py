"""The files of a measuring command: checked before the run, and a journal during it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from precisionbench.cli.exit_codes import Interrupted
from precisionbench.cli.output import complain
from precisionbench.errors import Terminated

if TYPE_CHECKING:
    from precisionbench.comparison import ComparisonFiles
    from precisionbench.diagnosis.findings import DiagnosisData


def spare_read_files(written: str, read: Iterable[str]) -> None:
    """Refuse to write over a file that the same command reads, also with `--overwrite`.

    Args:
        written: the file to write.
        read: the files that are read; those that do not exist are ignored.

    Raises:
        UsageError: one of them is the file to write.
    """
    for path in read:
        with suppress(OSError, ValueError):  # a name that no file has
            if Path(written).samefile(path):
                raise click.UsageError(
                    f"{written!r} is a file that this command reads; give another name to write"
                )


def files_of(*names: str | Mapping[str, str] | None) -> list[str]:
    """The Python files among models and functions, which are named as `path/to/file.py:function`.

    Args:
        names: of models and functions; several models in a mapping by their labels.
    """
    several = [name.values() if isinstance(name, Mapping) else [name] for name in names if name]
    return [name.rpartition(":")[0] for group in several for name in group]


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

    def check(self, read: Iterable[str] = ()) -> None:
        """Refuse before the run what could not be written after it.

        Args:
            read: files that the same command reads.

        Raises:
            OutputError: one of the files cannot be written.
            UsageError: both are the same file, one is read, or there is none to overwrite.
        """
        from precisionbench._internal.files import check_writable

        named = [path for path in (self.output, self.html) if path is not None]
        if self.overwrite and not named:
            raise click.UsageError("--overwrite requires --output or --html; add one")
        for path in named:
            check_writable(path, self.overwrite)
            spare_read_files(path, read)
        if len({os.path.realpath(path) for path in named}) < len(named):
            raise click.UsageError("--output and --html name the same file; give two")

    @contextmanager
    def journal(self) -> Iterator[Path | None]:
        """The journal of a run next to its first file; None where it writes none.

        Raises:
            Interrupted: Ctrl-C was pressed; the message says what the journal holds.
            Terminated: likewise for SIGTERM and SIGHUP.
            OutputError: the journal cannot be created.
        """
        from precisionbench.results.journal import claim_file

        file = self.output or self.html
        journal = None if file is None else claim_file(Path(file))
        try:
            yield journal
        except KeyboardInterrupt:
            raise Interrupted(_kept_rounds(journal) or _nothing_kept(journal)) from None
        except Terminated as exc:
            exc.kept = _kept_rounds(journal) or _nothing_kept(journal)
            raise
        except BaseException:
            if kept := _kept_rounds(journal):
                complain(kept)
            raise

    def save(self, result: ComparisonFiles, journal: Path | None) -> None:
        """Write the result file; the journal is not needed any more then.

        Raises:
            OutputError: it cannot be written; the remedy says where the figures are.
        """
        if self.output is None:
            return
        with _kept_elsewhere(lambda: _saved_as_journal(result, journal)):
            result.save(self.output, overwrite=self.overwrite)
        _remove(journal)

    def write_report(
        self,
        result: ComparisonFiles,
        journal: Path | None,
        diagnosis: DiagnosisData | None = None,
    ) -> None:
        """Write the HTML report.

        Raises:
            OutputError: as for `save`.
        """
        if self.html is None:
            return
        saved = self.output and f"the result is in {self.output!r}; precisionbench show makes one"
        with _kept_elsewhere(lambda: saved or _saved_as_journal(result, journal)):
            result.to_html(self.html, overwrite=self.overwrite, diagnosis=diagnosis)
        _remove(journal)


@contextmanager
def _kept_elsewhere(where: Callable[[], str]) -> Iterator[None]:
    """Let an error of an output say where the figures are.

    Args:
        where: keeps them, if need be; gives a sentence on it.
    """
    from precisionbench.errors import OutputError

    try:
        yield
    except OutputError as exc:
        raise type(exc)(exc.reason, where()) from exc


def _saved_as_journal(result: ComparisonFiles, journal: Path | None) -> str:
    """Save a result in the place of its journal, which has less; a sentence on what is kept."""
    from precisionbench.errors import OutputError

    assert journal is not None
    try:
        result.save(journal, overwrite=True)
    except OutputError:  # the disk is full
        which = "those rounds that could be written"
        return _kept_rounds(journal, which) or _nothing_kept(journal)
    return f"the result is in {str(journal)!r} instead, where precisionbench show finds it"


def _kept_rounds(journal: Path | None, which: str = "finished rounds") -> str:
    """A sentence on the rounds in a journal; without any it is empty, and the journal removed."""
    from precisionbench.results.journal import has_blocks

    if journal is not None and has_blocks(journal):
        return f"{which} are kept; precisionbench show {str(journal)!r} has them"
    _remove(journal)
    return ""


def _nothing_kept(journal: Path | None) -> str:
    if journal is None:
        return "nothing is kept; with --output, finished rounds are"
    return "no round was finished, so nothing is kept"


def _remove(journal: Path | None) -> None:
    if journal is not None:
        journal.unlink(missing_ok=True)
