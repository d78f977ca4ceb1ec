"""`compare()`: check the options, plan the rows, resolve the workload, measure, collect."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from precisionbench._internal.termination import terminated_in_order
from precisionbench._version import __version__
from precisionbench.analysis.alternatives import with_alternatives
from precisionbench.backends import Backend
from precisionbench.errors import FOREIGN_ERRORS, SpecError, Terminated
from precisionbench.measure import interleaved, sequential
from precisionbench.measure.after_rows import AfterRows, Experimenter
from precisionbench.measure.collector import Collector
from precisionbench.measure.guard import explained
from precisionbench.measure.options import Options
from precisionbench.measure.planning import Plan, Request
from precisionbench.measure.rows import (
    DEFAULT_BACKENDS,
    Backends,
    Row,
    default_backends,
    packages_of,
    plan,
)
from precisionbench.measure.run import System
from precisionbench.measure.time_estimate import TimeEstimate
from precisionbench.measure.worker.fork_client import ForkServer
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.shared_server import SHARED_SERVER
from precisionbench.model.libraries import library_modules
from precisionbench.model.workload import Workload
from precisionbench.report.progress import shown
from precisionbench.results import ComparisonData, json_format
from precisionbench.results.journal import Journal
from precisionbench.results.json_values import Json
from precisionbench.results.progress import OnProgress, OnProgressOption, Progress
from precisionbench.system import environment
from precisionbench.system.memory import free_memory
from precisionbench.torchtools.global_state import rng_restored
from precisionbench.torchtools.global_state import threads as threads_set

if TYPE_CHECKING:  # it imports 130 modules, which can wait until the server begins
    from precisionbench.comparison import Comparison

__all__ = ["DEFAULT_BACKENDS", "Progress", "compare", "default_backends", "plan"]

Model = nn.Module | Callable[[], Any] | str

# Comparisons in two threads would disturb each other's times, and torch's settings belong to the
# whole process. The lock is reentrant for a callback that starts a comparison within another one.
_one_at_a_time = threading.RLock()


def compare(
    model: Model | Mapping[str, Model],
    inputs: Any = None,
    *,
    backends: Backends | None = None,
    reference: str | Backend = "eager",
    device: Any = None,
    batch_size: int | Sequence[int] | None = None,
    launcher: str = "process",
    replicas: int | None = None,
    sessions: int = 1,
    seed: int | None = None,
    budget_s: float | None = None,
    noise_floor: float | None = None,
    shared_cores: int | None = None,
    evidence: bool | None = None,
    build_together: bool = False,
    passes: bool | None = None,
    threads: int | None = None,
    effort: str = "normal",
    experiments: Experimenter | None = None,
    on_progress: OnProgressOption = "auto",
    journal: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Measure a model, or several models, under several precision backends.

    The models and inputs are never changed: each backend gets copies, and torch's flags, functions
    and random states are restored afterwards. Only progress is printed, to stderr.

    Args:
        model: an `nn.Module`, a function that builds one (or `(model, inputs)`),
            `"torchvision:NAME"`, `"package.module:function"` or `"path/to/file.py:Class"`. A
            function is called again for every backend with the same random seed. A mapping such
            as `{"old": a, "new": b}` measures each model under each backend, all in the same
            rounds; the rows are `old/half`, `new/half`, ...
        inputs: one forward pass's arguments: a tensor, a tuple, a mapping of keyword arguments,
            or a function that gives one of these; all models get the same. For a model with other
            inputs, give a function that returns `(model, inputs)`.
        backends: specs such as `"half:dtype=bfloat16"` or `Backend` objects, measured in this
            order; `{"fast": "compile"}` or `"fast=compile"` gives a row a label. None is
            `default_backends` of the device, of which rows whose calls take far longer than the
            reference's are left out on a CPU, with a note.
        reference: the row that the others are compared with; measured first if not in `backends`.
            With several models or batch sizes, each row is compared with the reference of its own
            model and batch size; `"old/eager"` is the reference of all models,
            `"eager:batch_size=1"` of all batch sizes, and `"old"` compares each row with the same
            backend's row of that model.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`; None takes the model's GPU, else the current GPU,
            else the CPU.
        batch_size: items per call, where the inputs' first dimension is something else; for
            `"torchvision:NAME"`, and for functions with a parameter of this name, the batch size
            to create. None uses the function's own default. A list such as `[1, 8, 32]` measures
            each backend at each of them: `batch_sweeps` of the result then has the smallest one at
            which throughput stops growing.
        launcher: `"process"`: each backend in worker processes of its own, in interleaved rounds;
            `"inline"`: in this process, one backend after another, for debugging.
        replicas: fresh processes of each backend; None is the number of the effort, or else 3 on a
            GPU and 2 elsewhere, fewer if memory or build time does not allow that.
        sessions: number of repetitions of the whole comparison, each with new processes.
        seed: of weights and inputs created here; None draws one. The result records it.
        budget_s: seconds for everything after building: warm-up, rounds, passes and profile of all
            backends, in all sessions. A note names what did not fit and was left out. None is 60 s
            for each backend on a GPU and 10 s elsewhere, times the factor of the effort, at most
            900 s; most comparisons end much earlier. Experiments have a separate budget.
        noise_floor: known run-to-run standard deviation of the log of a latency on this machine,
            as `precisionbench examine` measures it; intervals cover at least this variance. None
            is 0.0025 on a GPU and 0 elsewhere.
        shared_cores: while they are measured, pin the main threads of all workers, which call the
            models, to the same few CPU cores (Linux), which reduces run-to-run variance of small
            batches; 0 does not pin them. None is 2 on a GPU, unless calls keep several cores busy,
            and 0 elsewhere.
        evidence: profile each row's calls, layer by layer, after all rows are measured; `explain`
            uses it. None is true, unless the effort is `"quick"`.
        build_together: prepare all rows at the same time, which is faster where they compile;
            build times and autotuning of backends then disturb each other.
        passes: after the rounds, on a GPU, measure device, enqueue and wall time, transfers, memory
            and energy in separate passes, and with `launcher="process"` a CUDA-graph replay. None
            is as for `evidence`.
        threads: threads of torch's operations on the CPU while all rows are built and measured, and
            of engines that have threads of their own. None is what torch has. A row's own option
            `threads` overrides it.
        effort: `"quick"`: one process of each backend, six rounds, no passes and no profile, a
            quarter of the budget: a first estimate in seconds; `"normal"`; or `"thorough"`: six
            processes, twelve rounds or more until intervals are narrow, four times the budget.
            Other arguments override it.
        experiments: `pb.Experiments("auto")`: made once all rows are measured, in their workers,
            which takes less time than afterwards; `explain` uses their results. None makes none.
        on_progress: `"auto"` shows progress on a terminal (stderr) or in a notebook; not in CI, in
            pytest, in a thread, or within another display. None shows nothing. A function is called
            with a `Progress` at each step; one that raises is not called again, with a note.
        journal: file to which every finished block is written; it is new, or empty. `load` reads
            it, also after a run that crashed.

    Returns:
        The comparison; a backend that failed is one of its `failures`. After a first Ctrl-C it
        holds the finished rounds, and `ended_by` is `interrupted`.

    Raises:
        SpecError: a backend, option or argument is invalid.
        WorkloadError: a model, inputs or device cannot be used.
        OutputError: the journal cannot be created, or the folder for temporary files (TMPDIR)
            cannot hold the model.
        KeyboardInterrupt: a Ctrl-C before any round was finished, or a second one.
        PrecisionBenchError: nothing at all could be measured; the reference's own error.
    """
    options = Options.of(
        effort,
        launcher=launcher,
        seed=seed,
        budget_s=budget_s,
        replicas=replicas,
        sessions=sessions,
        noise_floor=noise_floor,
        shared_cores=shared_cores,
        evidence=evidence,
        build_together=build_together,
        passes=passes,
        threads=threads,
    )
    request = Request.of(model, inputs, backends, reference, device, batch_size)
    _check_experiments(experiments, request.models)
    modules = [name for one in request.models.values() for name in library_modules(one)]
    found: list[Comparison] = []
    with _kept(found), exclusive(options, modules) as server, shown(on_progress) as tell:
        plan = request.planned(options)
        found.append(_measured(plan, tell, journal, server, experiments))
    return found[0]


@contextlib.contextmanager
def _kept(found: Sequence[Comparison]) -> Iterator[None]:
    """Raise any exception before a comparison is found; afterwards it becomes a note of it."""
    try:
        yield
    except FOREIGN_ERRORS as exc:
        if not found:
            raise
        text = f"the measurement is complete, but a later step failed: {explained(exc)}"
        data = found[0].data
        found[0].data = attrs.evolve(data, notes=(*data.notes, text))


def _check_experiments(experiments: object, models: Collection[str]) -> None:
    if experiments is not None and "" not in models:
        raise SpecError(
            "experiments are made on one model, and several were given",
            "leave experiments out, or compare one model",
        )
    if experiments is not None and not callable(experiments):
        raise SpecError(f"experiments is {experiments!r}", f"give pb.Experiments({experiments!r})")


def compare_with(
    workload: Workload,
    rows: Sequence[Row],
    reference: str,
    options: Options,
    *,
    on_progress: OnProgress | None = None,
    journal: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Measure planned rows of a workload that is resolved already.

    Args:
        workload: the model and inputs; its seed is the run's.
        rows: what to measure, as `plan` gives them.
        reference: name of the row that the others are compared with.
        options: how to measure.
        on_progress: called with a `Progress` at each step; None shows nothing.
        journal: as for `compare`.

    Returns:
        As `compare`.

    Raises:
        OutputError: as `compare`.
        KeyboardInterrupt: as `compare`.
        PrecisionBenchError: nothing at all could be measured; the reference's own error.
    """
    found: list[Comparison] = []
    with _kept(found), exclusive(options, workload.libraries) as server:
        plan = Plan.of_rows(workload, rows, reference, options)
        found.append(_measured(plan, on_progress, journal, server))
    return found[0]


@contextlib.contextmanager
def exclusive(options: Options, modules: Sequence[str]) -> Iterator[ForkServer | None]:
    """One comparison at a time; random states are afterwards as they were.

    Gives the server that forks the workers; it imports torch and modules while others work. SIGTERM
    and SIGHUP end the workers first, and then this process.

    Args:
        options: of the comparison.
        modules: of libraries that the model needs.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_at_a_time)
        stack.enter_context(terminated_in_order(SHARED_SERVER.close))
        stack.enter_context(rng_restored())
        if options.threads is not None:
            stack.enter_context(threads_set(options.threads))  # workers have our settings of torch
        is_inline = options.launcher == "inline"
        server = None if is_inline else stack.enter_context(SHARED_SERVER.in_use())
        if server is not None:
            server.import_libraries(modules)
        yield server


def _measured(
    plan: Plan,
    on_progress: OnProgress | None,
    journal: str | os.PathLike[str] | None,
    server: ForkServer | None,
    experiments: Experimenter | None = None,
) -> Comparison:
    """Measure all rows and collect what they give."""
    rows, options = plan.rows, plan.options
    if server is not None:
        server.import_libraries(plan.libraries)
    importlib.import_module("precisionbench.comparison")  # while the server imports torch
    header = header_of(plan)
    after_rows = AfterRows(experiments, partial(_comparison, header, rows), on_progress)
    if options.launcher == "process":
        free_memory()  # a factory may have built on the GPU, where the workers need the room
    with _opened_journal(journal, header, rows) as opened:
        collector = _collector(plan, on_progress, opened)
        header.update(_measure(plan, collector, server, after_rows))
        if opened is not None and opened.write_error:
            collector.add_note(opened.write_error)
    collector.raise_if_nothing_measured()
    comparison = _comparison(header, rows, collector)
    after_rows.without_workers(comparison, plan.any_workload)
    comparison.experiments = after_rows.made
    return comparison


def _collector(plan: Plan, on_progress: OnProgress | None, journal: Journal | None) -> Collector:
    options = plan.options
    collector = Collector(
        plan.rows,
        plan.planned.reference,
        plan.info.batch_size,
        plan.row_warnings,
        on_progress,
        journal,
        TimeEstimate.of(plan.rows, plan.any_workload.device.type, options),
        plan.planned.references,
    )
    if options.note():
        collector.add_note(options.note())
    return collector


def _comparison(header: Mapping[str, Any], rows: Sequence[Row], collector: Collector) -> Comparison:
    """The comparison of what is collected."""
    from precisionbench.comparison import Comparison

    backends = {row.name: row.backend for row in collector.rows if row.backend is not None}
    return Comparison(comparison_data(header, rows, collector), collector.errors, backends)


def header_of(plan: Plan) -> dict[str, Any]:
    """Fields of `ComparisonData` that are known before anything is measured.

    Args:
        plan: of the rows, and how they are measured.
    """
    workload, options = plan.any_workload, plan.options
    now = datetime.datetime.now(datetime.timezone.utc)
    several = {"models": plan.models, "references": dict(plan.planned.references)}
    return {
        "created": now.isoformat(timespec="seconds"),
        "precisionbench": __version__,
        "workload": plan.info,
        "environment": environment.capture(workload.device, packages_of(plan.rows)),
        "seed": workload.seed,
        "launcher": options.launcher,
        "reference": plan.planned.reference,
        "schedule": "sequential" if options.launcher == "inline" else "rounds",
        "noise_floor": options.noise_floor_on(workload.device.type),
        "options": options.as_record(),
        **{field: value for field, value in several.items() if value},
    }


@contextlib.contextmanager
def _opened_journal(
    file: str | os.PathLike[str] | None, header: Mapping[str, Any], rows: Sequence[Row]
) -> Iterator[Journal | None]:
    """A journal of the run; None where none is asked for."""
    if file is None:
        yield None
        return
    known = {name: json_format.unstructured(value) for name, value in header.items()}
    journal = Journal(file, known, [row.identity for row in rows])
    try:
        yield journal
    except Terminated as exc:
        exc.kept = f"finished rounds are kept; precisionbench show {str(journal.file)!r} shows them"
        raise
    finally:
        journal.close()


def _measure(
    plan: Plan, collector: Collector, server: ForkServer | None, after_rows: AfterRows
) -> dict[str, Json]:
    """Measure the rows; fields of `ComparisonData` that record how."""
    workloads, options = plan.workloads, plan.options
    if options.launcher == "inline":
        rows = len(collector.rows)
        budget_s = options.total_budget_s(plan.any_workload.device.type, rows) / rows
        sequential.measure(workloads, collector, budget_s, options)
        return {"schedule": "sequential", "shared_cores": None}
    system = System(worker_pool=partial(WorkerPool, server))
    outcome = interleaved.measure(workloads, collector, options, system, after_rows.with_workers)
    return attrs.asdict(outcome)


def comparison_data(
    header: Mapping[str, Any], rows: Sequence[Row], collector: Collector
) -> ComparisonData:
    """The result of a run.

    Args:
        header: as `header_of` gives it.
        rows: in the order in which to show them.
        collector: holds what was measured.
    """
    names = [row.name for row in rows]
    results = tuple(collector.results[name] for name in names if name in collector.results)
    failures = (collector.failures[name] for name in names if name in collector.failures)
    return ComparisonData(
        **header,
        results=results,
        failures=with_alternatives(failures, results),
        notes=collector.notes,
        conditions=tuple(collector.conditions),
    )
