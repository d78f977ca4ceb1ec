"""Runs experiments: each changed row in common rounds with the unchanged one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import torch

from precisionbench._internal.output_capture import silence
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.backends import Backend
from precisionbench.backends.from_files import from_file
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import ExperimentResult, MadeExperiments
from precisionbench.display import Shown
from precisionbench.errors import PrecisionBenchError, SpecError, UntrustedSpecError, WorkloadError
from precisionbench.measure import compare
from precisionbench.measure.after_rows import MeasureRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row
from precisionbench.model.workload import Workload, resolve, usable_device
from precisionbench.results import ComparisonData, WorkloadInfo
from precisionbench.results.progress import OnProgress, in_phase
from precisionbench.statistics import unpaired_ratio_interval
from precisionbench.workflows.experiment_costs import Costs
from precisionbench.workflows.experiments import FRESH_PROCESS, Plan, names_of, plan_experiments

OPTIONS = Options(replicas=2, evidence=False, build_together=True, passes=False)
# Models of this prefix take the batch as an option; their inputs are not given by the user.
_BATCH_AS_OPTION = "torchvision:"
# Suffix of a row that is measured in new processes although its workers are kept.
_FRESH = "#fresh"


def _wanted(experiments: str | Sequence[str]) -> str | Sequence[str]:
    """`auto` and `none` may be in a list, as the command line gives them."""
    if not isinstance(experiments, (str, Sequence)):
        raise SpecError(f"experiments is {experiments!r}", "give 'auto', 'none' or a list of names")
    return experiments[0] if list(experiments) in (["auto"], ["none"]) else experiments


def _check_names(_: object, __: object, wanted: str | Sequence[str]) -> None:
    names_of(wanted)


@attrs.frozen(repr=False)
class Experiments(Shown):
    """Experiments that run with a comparison, while its workers are still running: see `compare`.

    Args:
        wanted: `"auto"` runs those of the largest expected gain within the budget, `"none"` runs
            none; or names of experiments, as in `precisionbench.workflows.experiments.EXPERIMENTS`.
        budget_s: approximate time in seconds of all experiments of `"auto"`; those that do not fit
            are left out, with a note. None is 10 on a GPU and 45 elsewhere. It is not part of the
            comparison's budget.
        trust: allow backends of a loaded comparison that name plugins, code or folders.

    Raises:
        SpecError: there is no experiment with one of the names.
    """

    wanted: str | Sequence[str] = attrs.field(
        default="auto", converter=_wanted, validator=_check_names
    )
    budget_s: float | None = None
    trust: bool = False

    def __call__(
        self,
        comparison: Comparison,
        workload: Workload,
        measure: MeasureRows | None = None,
        on_progress: OnProgress | None = None,
    ) -> MadeExperiments:
        """Choose the experiments on a comparison and run them.

        Args:
            comparison: the comparison to explain.
            workload: its model and inputs.
            measure: measures rows with workers of the comparison; None starts new ones.
            on_progress: called with a `Progress` at each step.
        """
        data, before = comparison.data, comparison.experiments or MadeExperiments()
        costs = Costs.of(data, is_kept=measure is not None)
        budget_s = costs.budget_s if self.budget_s is None else self.budget_s
        backends, refused = _made_or_refused(comparison, self.trust)
        plans, impossible, notes = plan_experiments(
            diagnosis_of(data, before.results).findings,
            backends,
            self.wanted,
            budget_s,
            data.workload.batch_size,
            costs,
            refused,
        )
        rows_s = costs.rounds_s(len(rows_of(plans)))
        threads: Any = (data.options or {}).get("threads")
        options = attrs.evolve(
            OPTIONS, budget_s=rows_s or None, seed=workload.seed, threads=threads
        )
        progress = in_phase(on_progress, "experiments")
        measure = measure or in_new_workers(workload)
        results = run_experiments(plans, data, measure, progress, options)
        made = (*results, *impossible)
        again = {(one.cause, one.row) for one in made}
        kept = (one for one in before.results if (one.cause, one.row) not in again)
        return MadeExperiments((*kept, *made), (*before.notes, *notes))


# The workload and the backends of a comparison


def workload_as_measured(comparison: Comparison, model: Any, inputs: Any) -> Workload:
    """The workload that was measured, from its model and inputs.

    Args:
        comparison: the comparison.
        model: as for `compare`.
        inputs: as for `compare`.

    Returns:
        The workload, on the device and with the seed of the comparison.

    Raises:
        WorkloadError: it differs from the measured one, or it cannot be used.
    """
    measured = comparison.data.workload
    device = _device_as_measured(comparison.data.environment.device)
    make = partial(resolve, model, inputs, device=device, seed=comparison.data.seed)
    by_name = isinstance(model, str)
    takes_batch = by_name and model.startswith(_BATCH_AS_OPTION)
    with silence():  # what a factory prints is in each row's log
        workload = make(batch_size=measured.batch_size if takes_batch else None)
        if by_name and workload.info.batch_size != measured.batch_size:  # of --batch-size
            workload = make(batch_size=measured.batch_size)
    _check_same(workload.info, measured)
    return workload


def _device_as_measured(device: str) -> torch.device:
    """The device of a comparison, if this machine has it."""
    try:
        return usable_device(device)
    except WorkloadError as exc:
        raise WorkloadError(
            f"the result was measured on {device}, which cannot be used here",
            "run experiments on a machine that has this device; without the model, the result is "
            "explained without experiments",
        ) from exc


def _check_same(given: WorkloadInfo, measured: WorkloadInfo) -> None:
    for what in ("parameters", "batch_size", "inputs"):
        ours, theirs = getattr(given, what), getattr(measured, what)
        if ours != theirs:
            raise WorkloadError(
                f"the workload differs from the measured {measured.model!r} in its "
                f"{what.replace('_', ' ')}: {_described(ours)} instead of {_described(theirs)}",
                "give the model and inputs that were given to compare",
            )


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{'x'.join(map(str, t.shape))} {t.dtype}" for t in value)
    return str(value)


def backends_of(comparison: Comparison, trust: bool = False) -> dict[str, Backend]:
    """The backends of a comparison's rows: the given objects, or made from the rows' specs.

    Args:
        comparison: the comparison.
        trust: whether a loaded comparison may name plugins, code, folders and files.

    Returns:
        Backends by row; rows whose backend is not installed here, or not trusted, are left out.
    """
    return _made_or_refused(comparison, trust)[0]


def _made_or_refused(
    comparison: Comparison, trust: bool
) -> tuple[dict[str, Backend], dict[str, str]]:
    """Backends by row, and by row the reason why its spec is not trusted."""
    made: dict[str, Backend] = {}
    refused: dict[str, str] = {}
    for row in comparison.results:
        given = comparison.backends.get(row.backend)
        try:
            made[row.backend] = given or from_file(row.backend.partition("#")[0], trust)
        except UntrustedSpecError as exc:
            refused[row.backend] = str(exc)
        except PrecisionBenchError:
            continue
    return made, refused


# Running


def in_new_workers(workload: Workload) -> MeasureRows:
    """A function that measures rows in new workers.

    Args:
        workload: as `workload_as_measured` returns it.
    """

    def measure(
        rows: Sequence[Row], options: Options, on_progress: OnProgress | None
    ) -> ComparisonData:
        reference = rows[0].name
        return compare.compare_with(
            workload, rows, reference, options, on_progress=on_progress
        ).data

    return measure


def run_experiments(
    plans: Sequence[Plan],
    before: ComparisonData,
    measure: MeasureRows,
    on_progress: OnProgress | None = None,
    options: Options = OPTIONS,
) -> list[ExperimentResult]:
    """Measure the rows of all experiments in common rounds.

    Args:
        plans: the experiments.
        before: the comparison to explain.
        measure: measures the rows.
        on_progress: as for `compare`.
        options: how to measure.

    Returns:
        One result for each plan, in their order; a failed one has the reason.
    """
    if not plans:
        return []
    try:
        after = measure(rows_of(plans), options, on_progress)
    except PrecisionBenchError as exc:
        return [plan.trial(None, str(exc)) for plan in plans]
    if any(row.measurement.ended_by == "interrupted" for row in after.results):
        return [plan.trial(None, "it was interrupted") for plan in plans]
    return [_trial(plan, before, after) for plan in plans]


def rows_of(plans: Sequence[Plan]) -> list[Row]:
    """The rows to measure, each once, a changed row after the row that it is compared with.

    Args:
        plans: the experiments.
    """
    found: dict[str, Backend] = {}
    for plan in plans:
        pair = zip(_names(plan), (plan.row, plan.changed), strict=True)
        for name, backend in pair:
            if name:
                found.setdefault(name, backend)
    return [
        attrs.evolve(compare.plan([backend], backend)[0][0], name=name)
        for name, backend in found.items()
    ]


def _names(plan: Plan) -> tuple[str, str]:
    """Names of the unchanged row, empty where its earlier figures are used, and the changed one."""
    if plan.name == FRESH_PROCESS:
        return "", f"{canonical_spec(plan.changed)}{_FRESH}"
    return canonical_spec(plan.row), canonical_spec(plan.changed)


def _trial(plan: Plan, before: ComparisonData, after: ComparisonData) -> ExperimentResult:
    base, changed = _names(plan)
    failed = {failure.backend: failure.reason for failure in after.failures}
    for name in (base, changed):
        if name in failed:
            return plan.trial(None, failed[name])
    if not base:
        old = next(row for row in before.results if row.backend == plan.finding.row)
        new = next(row for row in after.results if row.backend == changed)
        return plan.trial(unpaired_ratio_interval(old.latency, new.latency))
    return plan.trial(per_item_ratio(after, base, changed))
