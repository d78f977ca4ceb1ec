"""`tune()`: check the arguments, resolve the workload, search, and put the result together."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
from torch import nn

from precisionbench._internal.output_capture import silence
from precisionbench._internal.paths import quoted
from precisionbench.backends.specs import canonical_spec
from precisionbench.errors import ENDS_OF_RUN
from precisionbench.measure import availability
from precisionbench.measure.open_rows import OpenRows
from precisionbench.measure.options import check_budget, check_seed
from precisionbench.measure.rows import packages_of, plan
from precisionbench.measure.worker.shared_server import SHARED_SERVER
from precisionbench.model import fingerprint
from precisionbench.model.libraries import library_modules
from precisionbench.model.workload import Workload, resolve
from precisionbench.report.progress import shown
from precisionbench.results.progress import OnProgress, OnProgressOption, Progress
from precisionbench.results.tuning import (
    FAILED,
    Target,
    TuningData,
)
from precisionbench.system import cpu_affinity, environment
from precisionbench.torchtools.from_paths import from_paths
from precisionbench.workflows.capabilities import capabilities_of
from precisionbench.workflows.tuning.accuracy import ErrorJudge, Judge, check_bound
from precisionbench.workflows.tuning.arguments import checked_sizes
from precisionbench.workflows.tuning.calibration import CalibrationBatches
from precisionbench.workflows.tuning.estimates import PRIORS
from precisionbench.workflows.tuning.journal import Journal, default_journal, key_of
from precisionbench.workflows.tuning.keys import Keys
from precisionbench.workflows.tuning.metric import metric_judge
from precisionbench.workflows.tuning.outcome import outcome_of
from precisionbench.workflows.tuning.search import Search
from precisionbench.workflows.tuning.space import Facts, Space, space
from precisionbench.workflows.tuning.status import Status
from precisionbench.workflows.tuning.target import target_of
from precisionbench.workflows.tuning.tuned import Tuned
from precisionbench.workflows.tuning.worker_bench import WorkerBench

_BUDGET_S = 120.0
LEAST_BUDGET_S = 5.0
_SEED = 0  # a model that is built with random weights is the same in every run
_CORES_OF_A_BUILD = {"cuda": 4}  # Triton compiles kernels in further processes
_CORES_OF_A_BUILD_ELSEWHERE = 2
_REFERENCES = 3  # copies of the model: the reference's, and float64's, which is twice as large
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
JournalOption = str | os.PathLike[str] | None


def tune(
    model: nn.Module | Callable[[], Any] | str,
    inputs: Any = None,
    *,
    max_error: float | None = None,
    metric: Callable[[Any, Any], float] | None = None,
    data: Iterable[Any] | None = None,
    drop: float | None = None,
    higher_is_better: bool = True,
    reference: str = "eager",
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    batch_sizes: Iterable[int] | None = None,
    device: Any = None,
    batch_size: int | None = None,
    seed: int | None = None,
    budget_s: float | None = None,
    on_progress: OnProgressOption = "auto",
    journal: JournalOption | Literal["auto"] = "auto",
) -> Tuned:
    """Find the fastest configuration that is accurate enough.

    Precisions, layouts, compile modes, CUDA graphs and engines that are available here are tried:
    cheap ones first, each judged by its outputs before it is timed. What cannot win any more is
    dropped. The fastest ones are measured in interleaved rounds, in two or three processes each.

    Args:
        model: as for `compare`.
        inputs: as for `compare`.
        max_error: largest relative L2 error of the output, against the model in float64, on these
            inputs and on shuffled ones. None is 0.01 where there is no metric.
        metric: a function `metric(outputs, batch)` that gives a number for a batch, such as its
            accuracy; with `data` and `drop`, instead of `max_error`. `outputs` is the model's
            output on the CPU: a tensor; a tuple for tuples and lists; or a mapping, whose items are
            also attributes, for mappings and objects. `batch` is a copy, which may be changed.
        data: batches of the shapes of `inputs`: tensors; sequences that begin with the model's
            arguments, such as (images, labels); or mappings that hold them by name. INT8
            configurations are calibrated with the inputs of the first 8. A list or tuple is used
            whole; of anything else, which may be endless, what can be read in a tenth of the
            budget.
        drop: how much worse than the reference's the metric may be on average; the 95 % interval
            over the batches has to be within it.
        higher_is_better: false for a metric such as a word error rate.
        reference: spec of the row that speed-ups and the drop are over.
        include: backends, or specs such as `"half:dtype=bfloat16"`, to try alone; None is all.
        exclude: backends, or specs whose configurations are not tried.
        batch_sizes: further batch sizes to try with the fastest configurations.
        device: as for `compare`.
        batch_size: as for `compare`.
        seed: of weights and inputs created here, and of the shuffling; None is 0.
        budget_s: seconds for everything; None is 120. When it is used up, the best configuration so
            far is the result.
        on_progress: as for `compare`.
        journal: file of what became of each configuration; a later run tries only what is not in
            it, or has changed. `"auto"` is one for each model in the user's folder for caches
            (`PRECISIONBENCH_CACHE_DIR`); None keeps nothing.

    Returns:
        The configuration that was chosen, and everything that was tried.

    Raises:
        SpecError: an argument is invalid, or nothing is left to try.
        WorkloadError: the model, inputs, data or device cannot be used, or the metric fails for
            outputs of the reference or depends on earlier calls.
        OutputError: the journal cannot be written.
        ResultFormatError: the journal is another file.
        KeyboardInterrupt: a Ctrl-C before anything was measured; later, the best configuration so
            far is the result.
        PrecisionBenchError: the reference could not be measured.
    """
    begun_s = time.monotonic()
    check_bound(max_error, metric, data, drop)
    check_budget(budget_s, LEAST_BUDGET_S)
    wanted = _Wanted(
        reference=checked_reference(reference),
        include=include,
        exclude=exclude,
        batch_sizes=checked_sizes(batch_sizes),
        budget_s=_BUDGET_S if budget_s is None else float(budget_s),
        begun_s=begun_s,
    )
    SHARED_SERVER.begin(library_modules(model))  # which imports them while the space is made
    with silence():  # what a factory prints is in each row's log
        place = {"device": device, "batch_size": batch_size}
        workload = resolve(model, inputs, seed=_checked_seed(seed), **place)
    judge = _judge(workload, wanted.budget_s, max_error, metric, data, drop, higher_is_better)
    with shown(on_progress) as tell:
        return _tuned(workload, judge, wanted, tell, journal)


def _judge(
    workload: Workload,
    budget_s: float,
    max_error: float | None,
    metric: Callable[[Any, Any], float] | None,
    data: Iterable[Any] | None,
    drop: float | None,
    higher_is_better: bool,
) -> Judge:
    inputs = workload.inputs
    if metric is None:
        return ErrorJudge.of(max_error, inputs, workload.seed)
    return metric_judge(metric, data, drop, higher_is_better, inputs, from_paths, budget_s)


@attrs.frozen
class _Wanted:
    """What the user asks for, besides the workload and the accuracy."""

    reference: str
    include: Iterable[str] | None
    exclude: Iterable[str] | None
    batch_sizes: Sequence[int]
    budget_s: float
    begun_s: float

    @property
    def end_s(self) -> float:
        return self.begun_s + self.budget_s


def checked_reference(spec: str) -> str:
    """The canonical spec of a reference.

    Args:
        spec: as for `tune`.

    Raises:
        SpecError: it names no backend, or its options cannot be understood.
    """
    return canonical_spec(availability.make(spec))


def _checked_seed(seed: int | None) -> int:
    check_seed(seed)
    return _SEED if seed is None else seed


def space_of(
    workload: Workload,
    model: nn.Module,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    batch_sizes: Sequence[int] = (),
) -> Space:
    """What would be tried for a workload on this machine.

    Args:
        workload: the model and inputs.
        model: of the workload, as it was built.
        include: as for `tune`.
        exclude: as for `tune`.
        batch_sizes: as for `tune`.
    """
    has_batch_norm = any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()
    )
    facts = Facts(capabilities_of(workload), has_batch_norm, batch_sizes)
    return space(facts, include, exclude)


def planned(
    model: nn.Module | Callable[[], Any] | str,
    inputs: Any = None,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    batch_sizes: Iterable[int] | None = None,
    device: Any = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Space:
    """What `tune` would try with the same arguments; nothing is prepared.

    Args:
        model: as for `tune`.
        inputs: as for `tune`.
        include: as for `tune`.
        exclude: as for `tune`.
        batch_sizes: as for `tune`.
        device: as for `tune`.
        batch_size: as for `tune`.
        seed: as for `tune`.

    Raises:
        SpecError: an argument is invalid, or nothing is left to try.
        WorkloadError: the model, inputs or device cannot be used.
    """
    sizes, seed = checked_sizes(batch_sizes), _checked_seed(seed)
    with silence():
        workload = resolve(model, inputs, device=device, batch_size=batch_size, seed=seed)
        built = workload.built()
    return space_of(workload, built, include, exclude, sizes)


def _tuned(
    workload: Workload,
    judge: Judge,
    wanted: _Wanted,
    tell: OnProgress | None,
    journal: JournalOption | Literal["auto"],
) -> Tuned:
    with silence():
        model = workload.built()
    found = space_of(workload, model, wanted.include, wanted.exclude, wanted.batch_sizes)
    specs = [wanted.reference, *(spec for family in found.families for spec in family.first)]
    where = environment.capture(workload.device, packages_of(plan(specs, wanted.reference)[0]))
    target = target_of(where, model)
    unread = fingerprint.unread(model)
    del model
    keys = Keys.of(target, where, judge, workload, wanted.reference, unread)
    calibration = _calibration(judge, workload)
    if journal == "auto":
        place = default_journal(target.architecture, target.device)
        memory = Journal.default(place, keys.of_spec)
    else:
        memory = Journal.opened(journal, keys.of_spec)
    further = [[*family.further, *family.excluded] for family in found.families]
    tried = [[keys.of_spec(spec) for spec in specs], [*wanted.batch_sizes], further]
    whole = key_of(keys.base, *tried)
    if whole in memory.results:
        result = _unchanged(memory.results[whole], memory.path)
    else:
        with _told_where(memory.path):
            result = _searched(workload, judge, wanted, tell, found, memory, target, calibration)
        may_pass = any(trial.may_pass for trial in result.trials)
        if result.ended_by == "finished" and not may_pass:
            memory.keep_result(whole, result)
    return Tuned(result, workload=workload, journal=memory.path, calibration=calibration)


def _calibration(judge: Judge, workload: Workload) -> CalibrationBatches | None:
    """The user's data to calibrate INT8 with; None where there is none."""
    if not judge.bound.is_metric:
        return None
    return CalibrationBatches.first_of(judge.inputs, workload.info.batch_size)


def _unchanged(result: TuningData, path: Path | None) -> TuningData:
    failed = any(trial.outcome == FAILED for trial in result.trials)
    text = (
        f"nothing has changed since {result.final.created}, so this is the result of then; use "
        f"journal=None (--no-journal) to {'try what failed and ' * failed}measure again, or delete "
        f"{path}"
    )
    return attrs.evolve(result, notes=(*result.notes, text), elapsed_s=0.0)


@contextlib.contextmanager
def _told_where(path: Path | None) -> Iterator[None]:
    """Let what ends a search say where the journal is, for the message of the command line, too.

    It also covers the end of the worker processes, in which a second Ctrl-C may come.
    """
    try:
        yield
    except ENDS_OF_RUN as exc:
        if path is not None:
            where = f"what was tried is kept in {quoted(path)}; the same again goes on"
            vars(exc)["kept"] = where
        raise


def _searched(
    workload: Workload,
    judge: Judge,
    wanted: _Wanted,
    tell: OnProgress | None,
    found: Space,
    memory: Journal,
    target: Target,
    calibration: CalibrationBatches | None,
) -> TuningData:
    # Here, too, because SIGTERM ends this process on leaving the rows.
    with OpenRows.of(workload, None) as rows, _told_where(memory.path):
        slots = _slots(workload.device.type)
        ahead = _ahead(workload.device.type, slots)
        bench = WorkerBench(rows, judge, slots, ahead, calibration)
        report = partial(_report, tell, wanted.begun_s)
        search = Search(
            space=found,
            bench=bench,
            memory=memory,
            reference=wanted.reference,
            end_s=wanted.end_s,
            budget_s=wanted.budget_s,
            final_passes=workload.device.type == "cuda",
            tell=report,
            priors=PRIORS.get(workload.device.type, {}),
        )
        report(Status("preparing the reference", 0, 0, wanted.reference, None, wanted.budget_s))
        if bench.has_room(wanted.reference, ahead + _REFERENCES):
            search.begin_builds()
        bench.begin(wanted.reference, wanted.end_s, search.end_builds)
        search.run()
    elapsed_s = time.monotonic() - wanted.begun_s
    return outcome_of(search, bench, found, memory, target, elapsed_s)


def _slots(device_type: str) -> int:
    """How many configurations are prepared at once: compiling keeps some cores busy for each."""
    each = _CORES_OF_A_BUILD.get(device_type, _CORES_OF_A_BUILD_ELSEWHERE)
    return max(1, len(cpu_affinity.usable_cores() or (0,)) // each)


def _ahead(device_type: str, slots: int) -> int:
    """How many are built while others are measured: on a CPU they would disturb these."""
    return slots if device_type == "cuda" and slots > 1 else 0


def _report(tell: OnProgress | None, begun_s: float, status: Status) -> None:
    if tell is None:
        return
    tell(
        Progress(
            backend="",
            stage="searching",
            position=status.done,
            total=status.total,
            remaining_s=status.remaining_s,
            step=status.step,
            speedups={status.leader: status.speedup} if status.speedup else {},
            elapsed_s=time.monotonic() - begun_s,
        )
    )
