"""Experiments: the rows that they change, and the choice of those to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from precisionbench.backends import Backend, discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.diagnosis.experiments import COMMON_OPTIONS, ROW_CHANGES, RowChange
from precisionbench.diagnosis.findings import ExperimentResult, Finding, FindingStatus
from precisionbench.display import Shown
from precisionbench.errors import PrecisionBenchError, SpecError, did_you_mean
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.statistics import Interval
from precisionbench.workflows import default_settings
from precisionbench.workflows.experiment_costs import Costs
from precisionbench.workflows.model_edits import EDITS, EditedWorkload

# Findings of less gain than this are not tested automatically.
_MIN_GAIN = 1.02
# The expected gain of a finding without a factor.
_UNKNOWN_GAIN = 1.5
FRESH_PROCESS = "fresh-process"
_NO_BACKEND = "the backend object is not available; run explain in the process that measured it"
# Makes the changed row of a row; the number is its batch size, if known.
_Change = Callable[[Backend, int | None], Backend]


def _common_options(backend: Backend) -> dict[str, Any]:
    """The options that every backend has."""
    return {field.name: getattr(backend, field.name) for field in attrs.fields(Backend)}


def _wrapped(kind: type[EditedWorkload], name: str) -> _Change:
    def changed(backend: Backend, _: int | None) -> Backend:
        of = canonical_spec(backend).replace(",", "+")
        return kind(of, name, backend=backend, **_common_options(backend))

    return changed


def _with_change(name: str) -> _Change:
    return lambda backend, items: _changed(backend, ROW_CHANGES[name], items)


def _changed(backend: Backend, change: RowChange, items: int | None) -> Backend:
    """A backend with a change; another backend takes those options that are not at a default."""
    written = split_spec(canonical_spec(backend))[1]
    if not change.applies_to(backend.name, written):
        raise SpecError(
            f"there is no equivalent {change.backend} row",
            f"add {change.backend!r} to the comparison",
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
        raise SpecError("the batch size is not known", "measure with batch_size (--batch-size)")
    return items


# What each experiment changes in a row.
EXPERIMENTS: Mapping[str, _Change] = {
    **{name: _with_change(name) for name in ROW_CHANGES},
    FRESH_PROCESS: lambda backend, _: backend,
    **{name: _wrapped(EditedWorkload, name) for name in EDITS},
    default_settings.NAME: _wrapped(default_settings.DefaultSettings, default_settings.NAME),
}


@attrs.frozen(repr=False)
class Plan(Shown):
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
    costs: Costs | None = None,
    refused: Mapping[str, str] | None = None,
) -> tuple[list[Plan], list[ExperimentResult], list[str]]:
    """Choose the experiments to run: the largest expected gain first, within the budget.

    Args:
        findings: of the diagnosis without experiments.
        backends: of the rows, by name.
        wanted: `auto`, `none`, or names of experiments.
        budget_s: approximate time in seconds of all experiments, if `wanted` is `auto`.
        batch_size: items per call; None if it is not known.
        costs: estimates their duration; None is a device other than a GPU.
        refused: by row, the reason why it has no backend, if there is a specific one.

    Returns:
        The experiments to run; those that cannot be run, with the reason; and notes on the others.

    Raises:
        SpecError: there is no experiment with one of the names.
    """
    names = names_of(wanted)
    costs = costs or Costs()
    possible: list[Plan] = []
    impossible: list[ExperimentResult] = []
    for finding in sorted(findings, key=_expected_gain, reverse=True):
        name = _first_wanted(finding, names)
        if finding.status is not FindingStatus.SUSPECTED or not name:
            continue
        if wanted == "auto" and not _is_worth_testing(finding):
            continue
        row = backends.get(finding.row) or (refused or {}).get(finding.row, _NO_BACKEND)
        plan = _plan(finding, name, row, batch_size)
        if isinstance(plan, Plan):
            possible.append(plan)
        else:
            impossible.append(plan)
    chosen = _within_budget(possible, budget_s, costs) if wanted == "auto" else possible
    return (
        chosen,
        impossible,
        [
            *_notes_of_time(possible, chosen, costs),
            *_notes(wanted, findings, possible, impossible),
        ],
    )


def _is_worth_testing(finding: Finding) -> bool:
    """Whether `auto` tests a finding: not if another row did already, or if its gain is small."""
    return not finding.experiment and _expected_gain(finding) >= _MIN_GAIN


def names_of(wanted: str | Sequence[str]) -> set[str]:
    """The names of the experiments that are wanted.

    Args:
        wanted: `auto`, `none`, or names of experiments.

    Returns:
        All of them for `auto`, none for `none`, else the given ones.

    Raises:
        SpecError: there is no experiment with one of the names.
    """
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
    finding: Finding, name: str, row: Backend | str, batch_size: int | None
) -> Plan | ExperimentResult:
    """An experiment for a finding, or why it cannot be run; `row` is the reason as text then."""
    failed = partial(ExperimentResult, name, finding.cause, finding.row, None)
    if isinstance(row, str):
        return failed(row)
    try:
        changed = EXPERIMENTS[name](row, row.batch_size or batch_size)
    except PrecisionBenchError as exc:
        return failed(str(exc))
    if name != FRESH_PROCESS and canonical_spec(changed) == canonical_spec(row):
        return failed("the row already has this change")
    return Plan(finding, name, row, changed)


def _within_budget(plans: Sequence[Plan], budget_s: float, costs: Costs) -> list[Plan]:
    """The plans that fit into the time budget, in their order."""
    chosen: list[Plan] = []
    for plan in plans:
        if costs.seconds([*chosen, plan]) <= budget_s:
            chosen.append(plan)
    return chosen


def _notes_of_time(possible: Sequence[Plan], chosen: Sequence[Plan], costs: Costs) -> Iterator[str]:
    if chosen:
        yield f"experiments run: {', '.join(map(_title, chosen))}"
    left = [plan for plan in possible if plan not in chosen]
    if left:
        names = " ".join(f"--experiments {name}" for name in dict.fromkeys(p.name for p in left))
        yield (
            f"experiments left out to save time: {', '.join(map(_title, left))}; all together take "
            f"about {costs.seconds(possible):.0f} s: use a larger time budget, or {names}"
        )


def _title(plan: Plan) -> str:
    return f"{plan.name} ({plan.finding.row})"


def _notes(
    wanted: str | Sequence[str],
    findings: Sequence[Finding],
    possible: Sequence[Plan],
    impossible: Sequence[ExperimentResult],
) -> Iterator[str]:
    asked = set() if wanted == "auto" else names_of(wanted)
    planned = {p.name for p in possible} | {t.experiment for t in impossible}
    shown = [f for f in findings if f.experiment in asked - planned]
    if shown:
        those = ", ".join(f"{f.experiment} ({f.row})" for f in shown)
        yield f"experiments not run, because a row of the comparison shows the result: {those}"
    unasked = asked - planned - {f.experiment for f in shown}
    if unasked:
        names = ", ".join(sorted(unasked))
        yield f"experiments not run, because no suspected finding needs them: {names}"
    if wanted == "auto" and not possible and not impossible:
        yield "no experiments run: no suspected finding needs one"
