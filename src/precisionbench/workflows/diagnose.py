"""`explain()` and `explain_gap()`: why a comparison's rows are as fast as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from precisionbench.analysis.groups import by_model
from precisionbench.comparison import Comparison, as_comparison
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import DiagnosisData, MadeExperiments
from precisionbench.diagnosis.gap.explained import gap_of
from precisionbench.diagnosis.gap.ledger import Factor, GapData
from precisionbench.diagnosis.gap.measured import fastest
from precisionbench.display import Records, Result, TableResult
from precisionbench.errors import SpecError, did_you_mean
from precisionbench.published.record import Record
from precisionbench.report import ledger as ledger_text
from precisionbench.report import plots, summaries
from precisionbench.report.diagnosis import to_text
from precisionbench.report.progress import shown
from precisionbench.results import BackendResult
from precisionbench.results.progress import OnProgressOption

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TABLES = ("findings", "labels", "layers", "precisions", "answers")


@attrs.frozen(repr=False)
class Diagnosis(Result, DiagnosisData):
    """Why the rows of a comparison are as fast as they are; `str` gives the text."""

    def to_dataframe(self, table: str = "findings") -> pd.DataFrame:
        """A table of the diagnosis as a pandas data frame.

        Args:
            table: `findings`, `labels`, `layers`, `precisions` or `answers`, as the fields.

        Returns:
            One line for each record of the table.

        Raises:
            MissingPackageError: pandas is not installed.
            SpecError: there is no such table.
        """
        if table not in _TABLES:
            raise SpecError(f"there is no table {table!r}", did_you_mean(str(table), _TABLES))
        return Records(getattr(self, table)).to_dataframe()

    def _summary(self) -> Iterator[str]:
        return summaries.of_diagnosis(self)

    def __str__(self) -> str:
        return to_text(self)


@attrs.frozen(repr=False)
class GapLedger(TableResult, GapData):
    """Why a measured rate is not the published one; `str` gives the waterfall with its sources."""

    def __str__(self) -> str:
        return ledger_text.to_text(self)

    @classmethod
    def of(cls, gap: GapData) -> GapLedger:
        """The printable ledger of plain gap data."""
        return cls(**{f.name: getattr(gap, f.name) for f in attrs.fields(GapData)})

    def to_markdown(self) -> str:
        """The ledger as Markdown, for a page or a pull request."""
        return ledger_text.to_markdown(self)

    def _records(self) -> tuple[object, ...]:
        return self.factors

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the waterfall with matplotlib: from the measured rate to the published one.

        Args:
            ax: axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        title = f"{self.measured.name} to {self.published.name}: {self.gap:.3g}x"
        return plots.plot_waterfall(self.factors, title, ax)

    def _summary(self) -> Iterator[str]:
        return summaries.of_gap(self)

    def as_data(self) -> dict[str, Any]:
        """All fields, with the gap and the warning, for JSON."""
        names = ("warning", "gap", *(field.name for field in attrs.fields(GapData)))
        return {name: getattr(self, name) for name in names}


def explain_gap(
    comparison: Comparison | str | os.PathLike[str],
    backend: str,
    published: str | Record,
    *,
    through: str | None = None,
    factors: Sequence[Factor] = (),
) -> GapLedger:
    """Explain the gap between a measured row and a published number, factor by factor.

    The first factors come from the comparison's other rows: single changes where rows differ in
    one option. The next come from pairs of published numbers that differ in one condition, and from
    the devices' peaks. The rest is always listed as unexplained.

    Args:
        comparison: as `compare` or `load` returns it, or the path of a result file.
        backend: the row to start from, as for `comparison[...]`.
        published: a published number, or its id, such as `mlperf-v5.0-h200-resnet50-offline`.
        through: the last measured row; None is the fastest one whose output is finite wherever
            the reference's is.
        factors: further known factors, each with its kind and source. One with the name of a
            derived factor replaces it; one with the name of a measured factor is refused, because
            it would count twice.

    Returns:
        Factors whose product is exactly the gap; `str` gives the waterfall.

    Raises:
        RecordNotFoundError: no published number has this id.
        RowNotFoundError: there is no such row.
        IncomparableError: one of the two is not a rate, or they are of different models or inputs.
        SpecError: a factor is called unexplained, or is already in the ledger; or `published` is
            neither an id nor a record; or `through` is a row of another model.
        ResultFormatError: the file cannot be read.
    """
    from precisionbench.published import everything, get

    record = published if isinstance(published, Record) else get(_id(published))
    comparison = as_comparison(comparison)
    start = comparison[backend]
    data = by_model(comparison.data)[start.model if comparison.data.models else ""]
    goal = fastest(data) if through is None else _of_same_model(start, comparison[through])
    return GapLedger.of(gap_of(data, start.backend, goal, record, everything(), factors))


def _of_same_model(start: BackendResult, last: BackendResult) -> str:
    """The name of the last row, which must be of the model of the first."""
    if last.model != start.model:
        raise SpecError(
            f"{start.backend} and {last.backend} are of different models",
            f"explain the gap through a row of {start.model}",
        )
    return last.backend


def _id(published: object) -> str:
    if not isinstance(published, str):
        raise SpecError(
            f"published is {published!r}",
            "give an id, such as 'mlperf-v5.0-h200-resnet50-offline', or a published record",
        )
    return published


def _diagnosis(comparison: Comparison, made: MadeExperiments | None) -> Diagnosis:
    made = made or MadeExperiments()
    found = diagnosis_of(comparison.data, made.results, made.notes)
    fields = {f.name: getattr(found, f.name) for f in attrs.fields(DiagnosisData)}
    tables = {name: Records(fields[name]) for name in _TABLES}  # short at a prompt, thousands too
    return Diagnosis(**{**fields, **tables})


def explain(
    comparison: Comparison | str | os.PathLike[str],
    workload: Any = None,
    experiments: str | Sequence[str] = "none",
    *,
    budget_s: float | None = None,
    trust: bool = False,
    on_progress: OnProgressOption = "auto",
) -> Diagnosis:
    """Explain why the rows of a comparison are as fast as they are.

    Without a workload nothing is run and torch is not needed. Findings are then confirmed only by
    the measurements themselves, or by experiments that ran with `compare`.

    Args:
        comparison: as `compare` or `load` returns it, or the path of a result file.
        workload: `(model, inputs)` as given to `compare`, or a model's name or factory, for
            experiments.
        experiments: `"auto"` runs those of the largest expected gain within the budget, `"none"`
            runs none; or names of experiments, as in
            `precisionbench.workflows.experiments.EXPERIMENTS`.
        budget_s: approximate time in seconds of all experiments of `"auto"`; those that do not fit
            are left out, with a note. Experiments named in `experiments` run without a limit. None
            is 10 on a GPU and 45 elsewhere.
        trust: whether you trust the source of a loaded comparison. Without it, experiments run only
            on rows of this library's backends without options that name code, a folder or a file;
            notes list what was refused. A backend in `comparison.backends` under the row's name is
            used unchanged.
        on_progress: as for `compare`, for the experiments.

    Returns:
        Labels, findings, layers and answers; `str` gives the text.

    Raises:
        SpecError: experiments without a workload or on several models, or an unknown experiment.
        ResultFormatError: the file cannot be read.
        WorkloadError: what is wrong with the workload, or how it differs from what was measured.
    """
    comparison = as_comparison(comparison)
    if experiments in ("none", ["none"], ("none",)):
        return _diagnosis(comparison, comparison.experiments)
    if workload is None:
        raise SpecError(
            "experiments need the model, and there is no workload",
            "give workload=(model, inputs), or MODEL on the command line",
        )
    if comparison.data.models:
        raise SpecError(
            "experiments are made on one model, and the comparison has several",
            "compare the model alone, and explain that comparison",
        )
    from precisionbench.workflows import experiment_runs  # imports torch

    wanted = experiment_runs.Experiments(experiments, budget_s, trust)
    model, inputs = _model_and_inputs(workload)
    measured = experiment_runs.workload_as_measured(comparison, model, inputs)
    with shown(on_progress) as report:
        made = wanted(comparison, measured, on_progress=report)
    return _diagnosis(comparison, made)


diagnose = explain  # an alias


def _model_and_inputs(workload: Any) -> tuple[Any, Any]:
    if not isinstance(workload, tuple):
        return workload, None
    if len(workload) != 2:
        raise SpecError(
            f"workload is a tuple of {len(workload)}", "give (model, inputs), as for compare"
        )
    return workload
