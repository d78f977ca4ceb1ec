"""Why a comparison's rows are as fast as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from precisionbench.comparison import Comparison
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import DiagnosisData, Trial
from precisionbench.diagnosis.gap.explained import gap_of
from precisionbench.diagnosis.gap.ledger import Factor, GapData
from precisionbench.diagnosis.gap.measured import fastest
from precisionbench.errors import SpecError
from precisionbench.published.record import Record
from precisionbench.report import ledger as ledger_text
from precisionbench.report.diagnosis import to_text
from precisionbench.results.progress import OnProgress, in_phase

EXPERIMENTS_S = 45.0


@attrs.frozen
class Diagnosis(DiagnosisData):
    """Why the rows of a comparison are as fast as they are; printed, it is a text."""

    def __str__(self) -> str:
        return to_text(self)


@attrs.frozen
class GapLedger(GapData):
    """Why a measured rate is not the published one; printed, it is a waterfall with its sources."""

    def __str__(self) -> str:
        return ledger_text.to_text(self)

    @classmethod
    def of(cls, gap: GapData) -> GapLedger:
        """The ledger to print, of one that was put together by `diagnosis.gap.ledger`."""
        return cls(**{f.name: getattr(gap, f.name) for f in attrs.fields(GapData)})

    def to_markdown(self) -> str:
        """The same for a page or a pull request."""
        return ledger_text.to_markdown(self)

    def as_data(self) -> dict[str, Any]:
        """All of it, with the gap and what must be said first: for machines."""
        names = ("warning", "gap", *(field.name for field in attrs.fields(GapData)))
        return {name: getattr(self, name) for name in names}


def explain_gap(
    comparison: Comparison,
    backend: str,
    published: str | Record,
    *,
    through: str | None = None,
    factors: Sequence[Factor] = (),
) -> GapLedger:
    """Explain the gap between a measured row and a published number, factor by factor.

    The way leads through the comparison's other rows, by single changes as far as rows differ in
    single things; from the last of them on by published pairs of numbers that differ in one
    condition, and by the devices' peaks. What remains is unexplained, and always told.

    Args:
        comparison: as `compare` or `load` gave it.
        backend: the row to begin with, as for `comparison[...]`.
        published: a published number, or its id, such as `mlperf-v4.1-h200-resnet50-offline`.
        through: the row at which measuring ends; None is the fastest one whose output is finite
            wherever the reference's is.
        factors: others that you know, each with its kind and source; one of the name of a factor
            that would have been derived takes its place, and one of the name of a measured factor
            is refused, because it would count twice.

    Returns:
        Rows whose product is exactly the gap; printed, a waterfall.

    Raises:
        RecordNotFoundError: no published number has this id.
        RowNotFoundError: there is no such row.
        IncomparableError: one of the two is no rate, or they are of different models.
        SpecError: a factor is called unexplained, or is in the ledger already; or `published` is
            neither an id nor a record.
    """
    from precisionbench.published import everything, get

    record = published if isinstance(published, Record) else get(_id(published))
    data, start = comparison.data, comparison[backend].backend
    goal = fastest(data) if through is None else comparison[through].backend
    return GapLedger.of(gap_of(data, start, goal, record, everything(), factors))


def _id(published: object) -> str:
    if not isinstance(published, str):
        raise SpecError(
            f"published is {published!r}",
            "give an id, such as 'mlperf-v4.1-h200-resnet50-offline', or a published record",
        )
    return published


def _diagnosis(
    comparison: Comparison, trials: Sequence[Trial] = (), notes: Sequence[str] = ()
) -> Diagnosis:
    found = diagnosis_of(comparison.data, trials, notes)
    return Diagnosis(**{f.name: getattr(found, f.name) for f in attrs.fields(DiagnosisData)})


def diagnose(
    comparison: Comparison,
    workload: Any = None,
    experiments: str | Sequence[str] = "none",
    *,
    budget_s: float = EXPERIMENTS_S,
    on_progress: OnProgress | None = None,
) -> Diagnosis:
    """Find out why the rows of a comparison are as fast as they are.

    Without a workload nothing is run, torch is not needed, and findings stay suspected unless
    what was measured already proves them.

    Args:
        comparison: as `compare` or `load` gave it.
        workload: `(model, inputs)` as they were given to `compare`, or a model's name or factory:
            experiments are made on it.
        experiments: `"auto"` makes those that promise most within the budget, `"none"` makes none;
            or names of experiments, as in `precisionbench.workflows.experiments.EXPERIMENTS`.
        budget_s: seconds that `"auto"` may take, about; at least one experiment is made.
        on_progress: called with a `Progress` at each step of the experiments.

    Returns:
        Labels, findings, layers and answers; printed, it is a text.

    Raises:
        SpecError: experiments without a workload, or an unknown one.
        WorkloadError: what is wrong with the workload, or that it is not what was measured.
    """
    wanted = _wanted(experiments)
    first = _diagnosis(comparison)
    if wanted == "none":
        return first
    if workload is None:
        raise SpecError(
            "experiments need the model, and there is no workload",
            "give workload=(model, inputs), or MODEL on the command line",
        )
    from precisionbench.workflows import experiments as laboratory

    model, inputs = _model_and_inputs(workload)
    options = laboratory.as_measured(comparison, model, inputs)
    backends = laboratory.backends_of(comparison)
    batch_size = comparison.data.workload.batch_size
    plans, unable, notes = laboratory.planned(
        first.findings, backends, wanted, budget_s, batch_size
    )
    options["on_progress"] = in_phase(on_progress, "experiments")
    made = laboratory.made(plans, comparison, model, inputs, **options)
    return _diagnosis(comparison, [*made, *unable], notes)


def _wanted(experiments: str | Sequence[str]) -> str | Sequence[str]:
    """`auto` and `none` may stand in a list, too, as the command line gives them."""
    if isinstance(experiments, str):
        return experiments
    if not isinstance(experiments, Sequence):
        raise SpecError(f"experiments is {experiments!r}", "give 'auto', 'none' or a list of names")
    words = list(experiments)
    return words[0] if words in (["auto"], ["none"]) else words


def _model_and_inputs(workload: Any) -> tuple[Any, Any]:
    if not isinstance(workload, tuple):
        return workload, None
    if len(workload) != 2:
        raise SpecError(
            f"workload is a tuple of {len(workload)}", "give (model, inputs), as to compare"
        )
    return workload
