"""Experiments: a row with one thing changed, measured beside it as it is, in fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from precisionbench._internal.output_capture import silence
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.backends import Backend, discovery
from precisionbench.backends.compile import Compile
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.findings import Finding, Status, Trial
from precisionbench.errors import PrecisionBenchError, SpecError, WorkloadError, did_you_mean
from precisionbench.measure import compare
from precisionbench.model.workload import resolve
from precisionbench.statistics import Interval, unpaired_ratio_interval
from precisionbench.workflows.model_edits import CHANGES, WithChange

# Without these nothing is gained by proving a finding.
_LEAST_GAIN = 1.02
_REPLICAS = 2
# A row of an experiment takes about so long: starting and preparing two processes, and rounds.
_ROW_S = 6.0
_START_S = 15.0
_ROUNDS_S = 2.0  # of each row
FRESH_PROCESS = "fresh-process"
CAST_ONCE = "cast-once"
_TIMES_LARGER = 8
# Models whose batch is an option, and no matter of the inputs that they are given.
_TAKES_A_BATCH = "torchvision:"
# Makes the changed row of a row; the number is that of items in one of its calls, where known.
_Changing = Callable[[Backend, int | None], Backend]


def _common(backend: Backend) -> dict[str, Any]:
    return {field.name: getattr(backend, field.name) for field in attrs.fields(Backend)}


def _option(**options: Any) -> _Changing:
    return lambda backend, _: attrs.evolve(backend, **options)


def _change(name: str) -> _Changing:
    def changed(backend: Backend, _: int | None) -> Backend:
        of = canonical_spec(backend).replace(",", "+")
        return WithChange(of, name, backend=backend, **_common(backend))

    return changed


def _compiled(backend: Backend, _: int | None) -> Backend:
    if type(backend) is not Half or backend.fp32_layers:
        raise SpecError("there is no compiled row like this one", "measure 'compile' beside it")
    return Compile(backend.dtype, **_common(backend))


def _larger_batch(backend: Backend, items: int | None) -> Backend:
    if items is None:
        raise SpecError(
            "it is not known how many items a call serves", "give batch_size= when you measure"
        )
    return attrs.evolve(backend, batch_size=_TIMES_LARGER * items)


# For each experiment, what makes the changed row of a row.
EXPERIMENTS: Mapping[str, _Changing] = {
    "channels-last": _option(memory_format="channels_last"),
    "cudnn-benchmark": _option(cudnn_benchmark=True),
    "compiled": _compiled,
    "folded-batch-norm": _option(fold_batch_norm=True),
    "cuda-graph": _option(cuda_graph=True),
    "larger-batch": _larger_batch,
    "ieee-float32": lambda backend, _: Eager(**_common(backend)),
    FRESH_PROCESS: lambda backend, _: backend,
    CAST_ONCE: lambda backend, _: Half(**_common(backend)),
    **{name: _change(name) for name in CHANGES},
}


@attrs.frozen
class Plan:
    """An experiment to make.

    Attributes:
        finding: that it is for.
        name: of the experiment.
        row: the row as it is.
        changed: with one thing changed.
    """

    finding: Finding
    name: str
    row: Backend
    changed: Backend

    def trial(self, speedup: Interval | None, failure: str = "") -> Trial:
        """What came of it.

        Args:
            speedup: of the changed row over the row as it was; None where it failed.
            failure: why it failed.

        Returns:
            The experiment with its result.
        """
        return Trial(self.name, self.finding.cause, self.finding.row, speedup, failure)


def planned(
    findings: Sequence[Finding],
    backends: Mapping[str, Backend],
    wanted: str | Sequence[str],
    budget_s: float,
    batch_size: int | None = None,
) -> tuple[list[Plan], list[Trial], list[str]]:
    """Which experiments to make, those that promise most first, as many as the time allows.

    Args:
        findings: of the diagnosis without experiments.
        backends: of the rows, by name.
        wanted: `auto`, `none`, or names of experiments.
        budget_s: seconds for all of them.
        batch_size: items that a call serves; None where it is not known.

    Returns:
        The experiments; those that cannot be made, with the reason; and what to tell of the
        others.

    Raises:
        SpecError: there is no experiment of a name that was asked for.
    """
    names = _names(wanted)
    able: list[Plan] = []
    unable: list[Trial] = []
    for finding in sorted(findings, key=_promise):
        if finding.status is not Status.SUSPECTED or not _asks_for(finding, names):
            continue
        if wanted == "auto" and finding.factor and finding.factor.high < _LEAST_GAIN:
            continue
        name = _asks_for(finding, names)
        plan = _planned(finding, name, backends.get(finding.row), batch_size)
        if isinstance(plan, Plan):
            able.append(plan)
        else:
            unable.append(plan)
    chosen = _affordable(able, budget_s) if wanted == "auto" else able
    return chosen, unable, list(_told(wanted, able, chosen, unable))


def _asks_for(finding: Finding, names: set[str]) -> str:
    """The first of the wanted experiments that a finding proposes; empty where there is none."""
    proposed = (finding.proposed, *finding.alternatives)
    return next((name for name in proposed if name in names), "")


def _planned(
    finding: Finding, name: str, row: Backend | None, batch_size: int | None
) -> Plan | Trial:
    """An experiment that a finding proposes, or why it cannot be made."""
    failed = partial(Trial, name, finding.cause, finding.row, None)
    if row is None:
        return failed("the row's backend is not at hand; diagnose in the process that measured it")
    try:
        changed = EXPERIMENTS[name](row, row.batch_size or batch_size)
    except PrecisionBenchError as exc:
        return failed(str(exc))
    if name != FRESH_PROCESS and canonical_spec(changed) == canonical_spec(row):
        return failed("the row is so already")
    return Plan(finding, name, row, changed)


def _told(
    wanted: str | Sequence[str], able: Sequence[Plan], chosen: Sequence[Plan], bad: Sequence[Trial]
) -> Iterator[str]:
    if chosen:
        yield f"experiments made: {', '.join(f'{p.name} ({p.finding.row})' for p in chosen)}"
    left = [f"{p.name} ({p.finding.row})" for p in able if p not in chosen]
    if left:
        yield f"left out for lack of time: {', '.join(left)}; give budget_s, or names"
    asked = set() if wanted == "auto" else _names(wanted)
    unasked = asked - {p.name for p in able} - {t.experiment for t in bad}
    if unasked:
        yield f"no suspected finding asks for {', '.join(sorted(unasked))}, so it was not made"
    if wanted == "auto" and not able and not bad:
        yield "no suspected finding asks for an experiment, so none was made"


def as_measured(comparison: Comparison, model: Any, inputs: Any) -> dict[str, Any]:
    """The arguments of `compare` with which a workload is the one that was measured.

    Args:
        comparison: what was measured.
        model: as for `compare`.
        inputs: as for `compare`.

    Returns:
        The device and seed that were used, and the batch size where it was asked for.

    Raises:
        WorkloadError: what differs, or what is wrong with the workload.
    """
    measured = comparison.data.workload
    options: dict[str, Any] = {
        "device": comparison.data.environment.device,
        "seed": comparison.data.seed,
    }
    by_name = isinstance(model, str)
    if by_name and model.startswith(_TAKES_A_BATCH):
        options["batch_size"] = measured.batch_size
    with silence():  # what a factory prints is in each row's log
        given = resolve(model, inputs, **options).info
        if by_name and given.batch_size != measured.batch_size:  # it was asked for by --batch-size
            options["batch_size"] = measured.batch_size
            given = resolve(model, inputs, **options).info
    for what in ("parameters", "batch_size", "inputs"):
        ours, theirs = getattr(given, what), getattr(measured, what)
        if ours != theirs:
            raise WorkloadError(
                f"the workload is not what was measured: its {what.replace('_', ' ')} "
                f"{_short(ours)}, where {measured.model!r} had {_short(theirs)}",
                "give the model and inputs that were given to compare",
            )
    return options


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{'x'.join(map(str, t.shape))} {t.dtype}" for t in value)
    return str(value)


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


def _promise(finding: Finding) -> float:
    return -(finding.factor.high if finding.factor else 1.5)


def _affordable(plans: Sequence[Plan], budget_s: float) -> list[Plan]:
    chosen: list[Plan] = []
    for plan in plans:
        rows = _rows([*chosen, plan])
        if not chosen or _START_S + _ROW_S * len(rows) <= budget_s:
            chosen.append(plan)
    return chosen


def _rows(plans: Sequence[Plan]) -> list[Backend]:
    """Every backend once, each changed one with the one that it is compared with."""
    found: dict[str, Backend] = {}
    for plan in plans:
        for backend in (plan.row, plan.changed):
            found.setdefault(canonical_spec(backend), backend)
    return list(found.values())


def backends_of(comparison: Comparison) -> dict[str, Backend]:
    """The backends of a comparison's rows: as they were given, or made from their specs.

    Args:
        comparison: what was measured.

    Returns:
        Backends by row; a row is left out whose backend is not installed here.
    """
    found: dict[str, Backend] = {}
    for row in comparison.results:
        given = comparison.backends.get(row.backend)
        try:
            found[row.backend] = given or discovery.make(row.backend.partition("#")[0])
        except PrecisionBenchError:
            continue
    return found


def made(
    plans: Sequence[Plan], before: Comparison, model: Any, inputs: Any, **options: Any
) -> list[Trial]:
    """Make experiments: all their rows in common rounds, in fresh processes.

    Args:
        plans: which.
        before: the comparison that they are to explain.
        model: as for `compare`.
        inputs: as for `compare`.
        **options: further arguments of `compare`.

    Returns:
        One result for each plan, in their order; what failed says why.
    """
    if not plans:
        return []
    rows = _rows(plans)
    try:
        comparison = compare.compare(
            model,
            inputs,
            backends=rows,
            reference=rows[0],
            replicas=_REPLICAS,
            budget_s=_ROUNDS_S * len(rows),
            evidence=False,
            build_together=True,
            passes=False,
            **options,
        )
    except PrecisionBenchError as exc:
        return [plan.trial(None, str(exc)) for plan in plans]
    if any(row.measurement.ended_by == "interrupted" for row in comparison):
        return [plan.trial(None, "it was interrupted") for plan in plans]
    return [_result(plan, before, comparison) for plan in plans]


def _result(plan: Plan, before: Comparison, comparison: Comparison) -> Trial:
    names = [canonical_spec(plan.row), canonical_spec(plan.changed)]
    failed = {f.backend: f.reason for f in comparison.failures}
    for name in names:
        if name in failed:
            return plan.trial(None, failed[name])
    if plan.name == FRESH_PROCESS:
        old, new = before[plan.finding.row].latency, comparison[names[0]].latency
        return plan.trial(unpaired_ratio_interval(old, new))
    return plan.trial(per_item_ratio(comparison.data, names[0], names[1]))
