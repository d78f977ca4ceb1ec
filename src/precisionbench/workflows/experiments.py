"""Experiments: a row with one change, measured beside the unchanged row in fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from precisionbench._internal.output_capture import silence
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.backends import Backend, discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.experiments import COMMON_OPTIONS, ROW_CHANGES, RowChange
from precisionbench.diagnosis.findings import ExperimentResult, Finding, FindingStatus
from precisionbench.errors import PrecisionBenchError, SpecError, WorkloadError, did_you_mean
from precisionbench.measure import compare
from precisionbench.measure.options import Options
from precisionbench.model.workload import Workload, resolve
from precisionbench.results import WorkloadInfo
from precisionbench.results.progress import OnProgress
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.statistics import Interval, unpaired_ratio_interval
from precisionbench.workflows.model_edits import EDITS, EditedWorkload

# Findings of less gain than this are not tested automatically.
_MIN_GAIN = 1.02
# The expected gain of a finding without a factor.
_UNKNOWN_GAIN = 1.5
OPTIONS = Options(replicas=2, evidence=False, build_together=True, passes=False)
# About how long a row of an experiment takes: starting and preparing two processes, and rounds.
_ROW_S = 6.0
_START_S = 15.0
_ROUNDS_S = 2.0  # of each row
FRESH_PROCESS = "fresh-process"
# Models of this prefix take the batch as an option; their inputs are not given by the user.
_BATCH_AS_OPTION = "torchvision:"
# Makes the changed row of a row; the number is that of items in one of its calls, if known.
_Change = Callable[[Backend, int | None], Backend]


def _common_options(backend: Backend) -> dict[str, Any]:
    """The options that every backend has."""
    return {field.name: getattr(backend, field.name) for field in attrs.fields(Backend)}


def _with_edit(name: str) -> _Change:
    def changed(backend: Backend, _: int | None) -> Backend:
        of = canonical_spec(backend).replace(",", "+")
        return EditedWorkload(of, name, backend=backend, **_common_options(backend))

    return changed


def _with_change(name: str) -> _Change:
    return lambda backend, items: _changed(backend, ROW_CHANGES[name], items)


def _changed(backend: Backend, change: RowChange, items: int | None) -> Backend:
    """A backend with a change; another backend takes those options that are not at a default."""
    written = split_spec(canonical_spec(backend))[1]
    if not change.applies_to(backend.name, written):
        raise SpecError(
            f"there is no {change.backend} row like this one",
            f"measure {change.backend!r} beside it",
        )
    options = dict(change.options)
    if change.batch_factor > 1:
        options["batch_size"] = change.batch_factor * _known(items)
    if not change.backend:
        return attrs.evolve(backend, **options)
    taken = [*COMMON_OPTIONS, *(name for name in change.kept if hasattr(backend, name))]
    kept = {name: getattr(backend, name) for name in taken if name in (*written, *change.kept)}
    return discovery.make(spec_text(change.backend, {**kept, **options}))


def _known(items: int | None) -> int:
    if items is None:
        raise SpecError(
            "it is not known how many items a call serves", "give batch_size= when you measure"
        )
    return items


# What each experiment changes in a row.
EXPERIMENTS: Mapping[str, _Change] = {
    **{name: _with_change(name) for name in ROW_CHANGES},
    FRESH_PROCESS: lambda backend, _: backend,
    **{name: _with_edit(name) for name in EDITS},
}


@attrs.frozen
class Plan:
    """An experiment that can be run.

    Attributes:
        finding: the finding that it tests.
        name: of the experiment.
        row: the unchanged row.
        changed: the row with one change.
    """

    finding: Finding
    name: str
    row: Backend
    changed: Backend

    def trial(self, speedup: Interval | None, failure: str = "") -> ExperimentResult:
        """The result of the experiment.

        Args:
            speedup: of the changed row over the unchanged row; None if it failed.
            failure: why it failed.

        Returns:
            The experiment with its result.
        """
        return ExperimentResult(self.name, self.finding.cause, self.finding.row, speedup, failure)


# Planning


def plan_experiments(
    findings: Sequence[Finding],
    backends: Mapping[str, Backend],
    wanted: str | Sequence[str],
    budget_s: float,
    batch_size: int | None = None,
) -> tuple[list[Plan], list[ExperimentResult], list[str]]:
    """Choose the experiments to run: the largest expected gain first, within the budget.

    Args:
        findings: of the diagnosis without experiments.
        backends: of the rows, by name.
        wanted: `auto`, `none`, or names of experiments.
        budget_s: seconds for all of them.
        batch_size: items that a call serves; None if it is not known.

    Returns:
        The experiments to run; those that cannot be run, with the reason; and notes on the others.

    Raises:
        SpecError: there is no experiment of a name that was asked for.
    """
    names = _names(wanted)
    possible: list[Plan] = []
    impossible: list[ExperimentResult] = []
    for finding in sorted(findings, key=_expected_gain, reverse=True):
        name = _first_wanted(finding, names)
        if finding.status is not FindingStatus.SUSPECTED or not name:
            continue
        if wanted == "auto" and not _is_worth_testing(finding):
            continue
        plan = _plan(finding, name, backends.get(finding.row), batch_size)
        if isinstance(plan, Plan):
            possible.append(plan)
        else:
            impossible.append(plan)
    chosen = _within_budget(possible, budget_s) if wanted == "auto" else possible
    return chosen, impossible, list(_notes(wanted, findings, possible, chosen, impossible))


def _is_worth_testing(finding: Finding) -> bool:
    """Whether `auto` tests a finding: not where a row of the comparison did, or gains are small."""
    return not finding.experiment and _expected_gain(finding) >= _MIN_GAIN


def _names(wanted: str | Sequence[str]) -> set[str]:
    if wanted == "none":
        return set()
    if wanted == "auto":
        return set(EXPERIMENTS)
    given = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in given:
        if name not in EXPERIMENTS:
            known = [*EXPERIMENTS, "auto", "none"]
            raise SpecError(f"there is no experiment {name!r}", did_you_mean(str(name), known))
    return set(given)


def _expected_gain(finding: Finding) -> float:
    return finding.factor.high if finding.factor else _UNKNOWN_GAIN


def _first_wanted(finding: Finding, names: set[str]) -> str:
    """The first experiment of a finding that is wanted; empty if there is none."""
    proposed = (finding.proposed, *finding.alternatives)
    return next((name for name in proposed if name in names), "")


def _plan(
    finding: Finding, name: str, row: Backend | None, batch_size: int | None
) -> Plan | ExperimentResult:
    """An experiment for a finding, or why it cannot be run."""
    failed = partial(ExperimentResult, name, finding.cause, finding.row, None)
    if row is None:
        return failed("the row's backend is not at hand; diagnose in the process that measured it")
    try:
        changed = EXPERIMENTS[name](row, row.batch_size or batch_size)
    except PrecisionBenchError as exc:
        return failed(str(exc))
    if name != FRESH_PROCESS and canonical_spec(changed) == canonical_spec(row):
        return failed("the row is so already")
    return Plan(finding, name, row, changed)


def _within_budget(plans: Sequence[Plan], budget_s: float) -> list[Plan]:
    """The first plan, and every later one for which there is time."""
    chosen: list[Plan] = []
    for plan in plans:
        rows = _rows([*chosen, plan])
        if not chosen or _START_S + _ROW_S * len(rows) <= budget_s:
            chosen.append(plan)
    return chosen


def _notes(
    wanted: str | Sequence[str],
    findings: Sequence[Finding],
    possible: Sequence[Plan],
    chosen: Sequence[Plan],
    impossible: Sequence[ExperimentResult],
) -> Iterator[str]:
    if chosen:
        yield f"experiments made: {', '.join(f'{p.name} ({p.finding.row})' for p in chosen)}"
    left = [f"{p.name} ({p.finding.row})" for p in possible if p not in chosen]
    if left:
        yield f"left out for lack of time: {', '.join(left)}; give budget_s, or names"
    asked = set() if wanted == "auto" else _names(wanted)
    planned = {p.name for p in possible} | {t.experiment for t in impossible}
    shown = [f for f in findings if f.experiment in asked - planned]
    if shown:
        those = ", ".join(f"{f.experiment} ({f.row})" for f in shown)
        yield f"a row of the comparison shows it already, so it was not made: {those}"
    unasked = asked - planned - {f.experiment for f in shown}
    if unasked:
        yield f"no suspected finding asks for {', '.join(sorted(unasked))}, so it was not made"
    if wanted == "auto" and not possible and not impossible:
        yield "no suspected finding asks for an experiment, so none was made"


# The workload and the backends of a comparison


def workload_as_measured(comparison: Comparison, model: Any, inputs: Any) -> Workload:
    """The workload that was measured, from its model and inputs.

    Args:
        comparison: what was measured.
        model: as for `compare`.
        inputs: as for `compare`.

    Returns:
        The workload, on the device and with the seed of the comparison.

    Raises:
        WorkloadError: how it differs from what was measured, or what is wrong with it.
    """
    measured = comparison.data.workload
    make = partial(
        resolve, model, inputs, device=comparison.data.environment.device, seed=comparison.data.seed
    )
    by_name = isinstance(model, str)
    takes_batch = by_name and model.startswith(_BATCH_AS_OPTION)
    with silence():  # what a factory prints is in each row's log
        workload = make(batch_size=measured.batch_size if takes_batch else None)
        if by_name and workload.info.batch_size != measured.batch_size:  # of --batch-size
            workload = make(batch_size=measured.batch_size)
    _check_same(workload.info, measured)
    return workload


def _check_same(given: WorkloadInfo, measured: WorkloadInfo) -> None:
    for what in ("parameters", "batch_size", "inputs"):
        ours, theirs = getattr(given, what), getattr(measured, what)
        if ours != theirs:
            raise WorkloadError(
                f"the workload is not what was measured: its {what.replace('_', ' ')} "
                f"{_described(ours)}, where {measured.model!r} had {_described(theirs)}",
                "give the model and inputs that were given to compare",
            )


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{'x'.join(map(str, t.shape))} {t.dtype}" for t in value)
    return str(value)


def backends_of(comparison: Comparison) -> dict[str, Backend]:
    """The backends of a comparison's rows: the given objects, or made from the rows' specs.

    Args:
        comparison: what was measured.

    Returns:
        Backends by row; rows whose backend is not installed here are left out.
    """
    found: dict[str, Backend] = {}
    for row in comparison.results:
        given = comparison.backends.get(row.backend)
        try:
            found[row.backend] = given or discovery.make(row.backend.partition("#")[0])
        except PrecisionBenchError:
            continue
    return found


# Running


def run_experiments(
    plans: Sequence[Plan],
    before: Comparison,
    workload: Workload,
    on_progress: OnProgress | None = None,
    options: Options = OPTIONS,
) -> list[ExperimentResult]:
    """Measure the rows of all experiments in common rounds, in fresh processes.

    Args:
        plans: which experiments.
        before: the comparison that they are to explain.
        workload: as `workload_as_measured` returns it.
        on_progress: as for `compare`.
        options: how to measure; without a budget, 2 s for each row.

    Returns:
        One result for each plan, in their order; a failed one has the reason.
    """
    if not plans:
        return []
    try:
        after = _measured(_rows(plans), workload, options, on_progress)
    except PrecisionBenchError as exc:
        return [plan.trial(None, str(exc)) for plan in plans]
    if any(row.measurement.ended_by == "interrupted" for row in after):
        return [plan.trial(None, "it was interrupted") for plan in plans]
    return [_trial(plan, before, after) for plan in plans]


def _rows(plans: Sequence[Plan]) -> list[Backend]:
    """Every backend once, each changed one after the one that it is compared with."""
    found: dict[str, Backend] = {}
    for plan in plans:
        for backend in (plan.row, plan.changed):
            found.setdefault(canonical_spec(backend), backend)
    return list(found.values())


def _measured(
    backends: Sequence[Backend],
    workload: Workload,
    options: Options,
    on_progress: OnProgress | None,
) -> Comparison:
    budget_s = options.budget_s or _ROUNDS_S * len(backends)
    options = attrs.evolve(options, seed=workload.seed, budget_s=budget_s)
    rows, reference = compare.plan(backends, backends[0])
    return compare.compare_with(workload, rows, reference, options, on_progress=on_progress)


def _trial(plan: Plan, before: Comparison, after: Comparison) -> ExperimentResult:
    names = [canonical_spec(plan.row), canonical_spec(plan.changed)]
    failed = {f.backend: f.reason for f in after.failures}
    for name in names:
        if name in failed:
            return plan.trial(None, failed[name])
    if plan.name == FRESH_PROCESS:
        old, new = before[plan.finding.row].latency, after[names[0]].latency
        return plan.trial(unpaired_ratio_interval(old, new))
    return plan.trial(per_item_ratio(after.data, names[0], names[1]))
