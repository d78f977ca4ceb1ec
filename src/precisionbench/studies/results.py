"""`load_study()`: the results of one study or of several, put together; tables, reports, checks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from precisionbench._internal import files
from precisionbench.analysis.cells import result_of
from precisionbench.analysis.history import History
from precisionbench.analysis.merged import Group, Merged, merge
from precisionbench.analysis.study_diff import study_difference
from precisionbench.analysis.study_summary import StudySummary, summarise
from precisionbench.analysis.sweep import Sweep
from precisionbench.comparison import Comparison, load
from precisionbench.display import Result
from precisionbench.errors import SpecError
from precisionbench.report import study_report
from precisionbench.report.study_diff import StudyDiff
from precisionbench.report.study_words import headline, size_text
from precisionbench.results.study import CellResult
from precisionbench.studies.definition import read_toml
from precisionbench.studies.store import DEFINITION_FILE, Store, load_cells, open_store

if TYPE_CHECKING:
    from precisionbench.studies.run import Study

    Source: TypeAlias = str | os.PathLike[str] | Study | Comparison | CellResult


class StudyResults(Result):
    """The results of studies, in groups of comparable ones; `str` makes tables of them.

    Attributes:
        merged: the results in groups; see `groups`.
    """

    def __init__(self, merged: Merged) -> None:
        self.merged = merged

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of comparable results; each but the first names what sets it apart."""
        return self.merged.groups

    @property
    def results(self) -> tuple[CellResult, ...]:
        """The cells of all groups, each with its comparison or the reason why it failed."""
        return self.merged.results

    @cached_property
    def summary(self) -> StudySummary:
        """All that the results show, as data: sweeps, scaling by threads, histories."""
        return summarise(self.merged)

    @property
    def sweeps(self) -> tuple[Sweep, ...]:
        """Each model and device at several batch sizes, with crossovers."""
        return tuple(one for group in self.summary.groups for one in group.sweeps)

    @property
    def histories(self) -> tuple[History, ...]:
        """Cells that were measured at several dates, with the changes between them."""
        return self.summary.histories

    def diff(self, old: StudyResults | Source, force: bool = False) -> StudyDiff:
        """The differences to an older study, cell by cell; `precisionbench diff` prints them.

        Args:
            old: the older study, or what `load_study` takes.
            force: compare cells although their conditions differ; the result names them.

        Returns:
            The changes of each row of each cell; intervals and verdicts are simultaneous over all.

        Raises:
            IncomparableError: cells differ in conditions that change times; the reason names them.
            ResultFormatError: a file cannot be read.
            SpecError: there is no such study.
        """
        older = old if isinstance(old, StudyResults) else load_study(old)
        return StudyDiff.of(study_difference(older.results, self.results, force))

    def to_markdown(self) -> str:
        """All sections as Markdown."""
        return study_report.to_markdown(self.summary)

    def to_html(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write one HTML report for everything: a file that opens offline and loads nothing.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        from precisionbench.report.html.study_page import to_html  # imports Jinja

        files.write_report(path, lambda: to_html(self.summary), overwrite=overwrite)

    def __str__(self) -> str:
        return study_report.to_text(self.summary)

    def _summary(self) -> Iterator[str]:
        yield headline(self.summary)
        yield size_text(self.summary)


def load_study(*sources: Source, strict: bool = False) -> StudyResults:
    """Read the results of one study or of several, and put them together.

    Results are comparable if they were measured on the same kind of device with the same versions;
    those that are not are groups of their own. Needs neither torch nor a GPU.

    Args:
        sources: folders of studies, their TOML files, result files, studies, or comparisons.
        strict: refuse results that are not all comparable.

    Returns:
        The results, in groups.

    Raises:
        SpecError: there is no such study, or nothing was measured yet.
        ResultFormatError: a file cannot be read.
        IncomparableError: `strict`, and there are several groups; the reason names why.
    """
    found = merge(result for source in sources for result in _read(source))
    if not found.groups:
        raise SpecError("there are no results", "give a study with at least one finished cell")
    if strict:
        found.refuse_if_apart()
    return StudyResults(found)


def opened(source: str) -> Study | None:
    """The study of a folder, or of its TOML file; None for a folder without a definition.

    Args:
        source: that a user gave.

    Raises:
        SpecError: there is no such study.
    """
    from precisionbench.studies.run import Study

    folder = read_toml(source).folder if source.endswith(".toml") else Path(source)
    if folder.is_dir() and not (folder / DEFINITION_FILE).exists():
        return None
    return Study(folder)


def _read(source: Source) -> tuple[CellResult, ...]:
    if isinstance(source, CellResult):
        return (source,)
    if isinstance(source, Comparison):
        return (result_of(source.data),)
    if not isinstance(source, (str, os.PathLike)):
        return source.cells()
    if os.fsdecode(source).endswith(".toml"):
        return load_cells(read_toml(os.fsdecode(source)).folder)
    if not Path(source).is_dir():
        return (result_of(load(source).data),)
    store = open_store(source)
    return load_cells(source) if (store.folder / DEFINITION_FILE).exists() else _collected(store)


def _collected(store: Store) -> tuple[CellResult, ...]:
    """The results in a folder without a definition, such as files from several machines."""
    found = []
    for name, failed in store.names().items():
        result = store.result(name, failed)
        found.append(result or result_of(load(store.folder / f"{name}.json").data))
    return tuple(found)
