"""`study()`: the cells that are left, by any executor; and the `Study` that it returns."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import attrs

from precisionbench._internal import files
from precisionbench.analysis.merged import merge
from precisionbench.analysis.study_summary import summarise
from precisionbench.display import Result, Shown
from precisionbench.errors import PrecisionBenchError, SpecError, WorkerError, kind_of, one_line
from precisionbench.results.study import Cell, CellResult, DeviceStatus, StudyRun
from precisionbench.studies.cells import cells_of, name_of
from precisionbench.studies.definition import Definition, define
from precisionbench.studies.job import Job, Outcome, as_bytes, devices_of, run_cell
from precisionbench.studies.machine import Machine, is_named
from precisionbench.studies.status import status_of
from precisionbench.studies.store import Store, load_cells, open_store
from precisionbench.studies.this_machine import ThisMachine

if TYPE_CHECKING:
    from torch import nn

    from precisionbench.backends import Backend

_TRIES = 2  # of a cell whose worker dies
_ENDS_OF_EXECUTOR = (BrokenExecutor, CancelledError)


@attrs.frozen(repr=False)
class StudyProgress(Shown):
    """The argument of `on_cell`, which is called after each cell.

    Attributes:
        outcome: what became of the cell.
        finished: number of cells of this run that are finished or left.
        total: number of cells of this run.
        remaining_s: estimated time until this run ends; 0 before the first cell is measured.
    """

    outcome: Outcome
    finished: int
    total: int
    remaining_s: float


OnCell = Callable[[StudyProgress], object]


class Study(Result):
    """A study: a folder of results, one for each cell.

    Attributes:
        folder: of the results.
        outcomes: what became of each cell of the run; empty for a folder that was opened.
    """

    def __init__(self, folder: str | os.PathLike[str], outcomes: Sequence[Outcome] = ()) -> None:
        self._store = open_store(folder)
        self.folder = self._store.folder
        self.outcomes = tuple(outcomes)

    @property
    def definition(self) -> Definition:
        """What the study measures."""
        return self._store.definition()

    def cells(self) -> tuple[CellResult, ...]:
        """The finished cells, each with its comparison or the reason why it failed.

        Raises:
            ResultFormatError: a file is damaged.
        """
        return load_cells(self.folder)

    def status(self) -> tuple[DeviceStatus, ...]:
        """How far the study is on each of its devices.

        Raises:
            ResultFormatError: a file is damaged.
        """
        return status_of(self._store, self.definition)

    def __str__(self) -> str:
        from precisionbench.report.study_report import to_text
        from precisionbench.report.study_text import status_text

        results = self.cells()
        status = status_text(self.status())
        return f"{status}\n\n{to_text(summarise(merge(results)))}" if results else status

    def _summary(self) -> Iterator[str]:
        from precisionbench.report.study_text import status_text

        yield from status_text(self.status()).splitlines()


def study(
    models: nn.Module | Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any],
    *,
    shapes: Sequence[Any] | None = None,
    batch_sizes: Sequence[int] | int | None = None,
    threads: Sequence[int] | int | None = None,
    backends: Sequence[str | Backend] | Mapping[str, str | Backend] | None = None,
    devices: Sequence[str] | str | None = None,
    device: str | None = None,
    folder: str | os.PathLike[str] = "study",
    executor: Executor | None = None,
    only_device: str | None = None,
    retry_failed: bool = False,
    on_cell: OnCell | None = None,
    **options: Any,
) -> Study:
    """Measure models with several shapes, batch sizes and numbers of threads, each once.

    Every combination is a cell: one comparison, whose result is a file in the folder. A cell that
    has a file is not measured again, so a study that was interrupted goes on where it ended, and
    machines that share the folder share the work. One cell at a time is measured on a device.

    Args:
        models: one model, a list, or a mapping from labels, each as for `compare`. The label, or
            else the name, identifies the model in the folder: give a new version a new label.
        shapes: shapes of one item of a random float32 input, such as `[(3, 224, 224)]`, for models
            that come without inputs.
        batch_sizes: items per call, for models with `shapes` and for functions with a parameter
            `batch_size`.
        threads: numbers of CPU threads with which torch and the engines compute.
        backends: as for `compare`; all rows of a cell are measured together.
        devices: names of the devices to measure on, such as `["agx orin", "h200"]`; each machine
            measures the cells of its own. None is the device of the machine that runs the study.
        device: kind of device, as for `compare`; `"cuda"`, and None where there is a GPU, use
            every visible GPU.
        folder: of the results; it is made.
        executor: any `concurrent.futures.Executor`, such as `studies.executors.LocalProcesses(4)`;
            None measures in this process, one cell after another.
        only_device: measure cells of this device only.
        retry_failed: measure cells again that have failed.
        on_cell: called with a `StudyProgress` after each cell.
        options: further options of `compare`, such as `effort="quick"`.

    Returns:
        The study, with all cells that are finished.

    Raises:
        SpecError: an argument is invalid.
        OutputError: the folder cannot be made or written to.
        WorkerError: the executor broke; finished cells are kept.
        KeyboardInterrupt: a Ctrl-C; finished cells are kept.
    """
    sources, rows = _sources(models), _rows(backends)
    names = {label: one if isinstance(one, str) else "" for label, one in sources.items()}
    definition = define(
        models=names,
        shapes=shapes,
        batch_sizes=batch_sizes,
        threads=threads,
        backends=[text for text, _ in rows],
        devices=devices,
        device=device,
        **options,
    )
    _check_inputs(sources, definition)
    machine = checked_machine(definition)
    work = Work(definition, sources, tuple(row for _, row in rows), machine)
    outcomes = work.run(folder, executor, only_device, retry_failed, on_cell)
    return Study(folder, outcomes)


def checked_machine(definition: Definition) -> ThisMachine:
    """The machine that measures a study's cells, once the options are checked.

    Args:
        definition: of the study.

    Raises:
        SpecError: an option cannot be used.
    """
    from precisionbench.measure.options import Options

    given = {name: value for name, value in definition.options.items() if name != "reference"}
    effort = given.pop("effort", "normal")
    for threads in definition.threads:
        Options.of(effort, threads=threads, **given)
    return ThisMachine(definition.device, definition.options)


def _sources(models: Any) -> dict[str, Any]:
    """What builds each model, by its label."""
    found = _labelled(models)
    for name, model in found.items():
        if isinstance(model, str) and ":" not in model:
            raise SpecError(
                f"the model {model!r} has no ':'",
                "write 'torchvision:NAME', 'package.module:function' or 'file.py:Class'; a study "
                "in a TOML file is run by `precisionbench study run FILE`",
            )
        if not (isinstance(model, str) or callable(model)):
            raise SpecError(
                f"the model {name!r} is {kind_of(model)}",
                "give an nn.Module, a function that builds one, or its name",
            )
    return found


def _labelled(models: Any) -> dict[str, Any]:
    if isinstance(models, Mapping):
        return dict(models)
    listed = list(models) if isinstance(models, (list, tuple)) else [models]
    found: dict[str, Any] = {}
    for model in listed:
        name = model if isinstance(model, str) else _name_of(model)
        if name in found:
            raise SpecError(f"two models have the name {name!r}", "give {label: model, ...}")
        found[name] = model
    return found


def _name_of(model: Any) -> str:
    return getattr(model, "__name__", None) or type(model).__name__


def _rows(backends: Any) -> list[tuple[str, str | Backend]]:
    """The text of each row with its label, and the row as for `compare`."""
    if backends is None:
        return []
    if isinstance(backends, str):
        raise SpecError(f"backends is {backends!r}", f"give a list: [{backends!r}]")
    pairs = backends.items() if isinstance(backends, Mapping) else (("", one) for one in backends)
    return [_row(label, one) for label, one in pairs]


def _row(label: str, backend: Any) -> tuple[str, str | Backend]:
    if not isinstance(backend, str):
        from precisionbench.backends.specs import canonical_spec

        spec = canonical_spec(backend)
        return (f"{label}={spec}" if label else spec), backend
    text = f"{label}={backend}" if label else backend
    return text, text


def _check_inputs(sources: Mapping[str, Any], definition: Definition) -> None:
    from torch import nn

    for label, model in sources.items():
        if isinstance(model, nn.Module) and None in definition.shapes:
            raise SpecError(
                f"the model {label!r} has no inputs",
                "give shapes, or a function that returns the model and its inputs",
            )


# Running


@attrs.frozen
class Work:
    """The cells of a study, with what measures them.

    Attributes:
        definition: of the study.
        models: what builds each model, by label.
        backends: the rows of each cell, as for `compare`.
        machine: of the workers.
    """

    definition: Definition
    models: Mapping[str, Any]
    backends: tuple[Any, ...]
    machine: Machine

    @classmethod
    def of(cls, definition: Definition, machine: Machine | None = None) -> Work:
        """The work of a definition whose models have names.

        Args:
            definition: of the study.
            machine: of the workers; None is `ThisMachine`.

        Raises:
            SpecError: an option cannot be used.
        """
        machine = machine or checked_machine(definition)
        return cls(definition, definition.models, definition.backends, machine)

    def run(
        self,
        folder: str | os.PathLike[str],
        executor: Executor | None = None,
        only_device: str | None = None,
        retry_failed: bool = False,
        on_cell: OnCell | None = None,
    ) -> tuple[Outcome, ...]:
        """Measure the cells that have no file yet.

        Args:
            folder: of the results.
            executor: as for `study`.
            only_device: as for `study`.
            retry_failed: as for `study`.
            on_cell: as for `study`.

        Returns:
            What became of each of these cells.

        Raises:
            SpecError: `only_device` names none of the devices.
            OutputError: the folder cannot be made or written to.
            WorkerError: the executor broke.
            KeyboardInterrupt: a Ctrl-C.
        """
        store = Store(files.make_folder(folder))
        cells = self._cells(executor, only_device)
        store.define(self.definition)
        jobs = self._jobs(store, cells, retry_failed)
        start_s, found = time.monotonic(), list[Outcome]()
        for outcome in _outcomes(jobs, executor, store):
            found.append(outcome)
            if on_cell is not None:
                remaining_s = _remaining_s(found, len(jobs), time.monotonic() - start_s)
                on_cell(StudyProgress(outcome, len(found), len(jobs), remaining_s))
        return tuple(found)

    def _cells(self, executor: Executor | None, only_device: str | None) -> list[Cell]:
        """The cells of the chosen devices.

        Where the definition names no devices, it is the device of a worker.
        """
        names = self.definition.devices or self._names_of_worker(executor)
        chosen = [name for name in names if only_device is None or _is_chosen(name, only_device)]
        if not chosen:
            raise SpecError(
                f"{only_device!r} is none of the devices of this study ({', '.join(names)})",
                "give one of them, or run it on that device",
            )
        return [cell for name in chosen for cell in cells_of(self.definition, name)]

    def _names_of_worker(self, executor: Executor | None) -> tuple[str, ...]:
        if executor is None:
            devices = self.machine.devices()
        else:
            with _broken_executor():
                devices = executor.submit(devices_of, self.machine).result()
        return tuple(dict.fromkeys(device.name for device in devices))

    def _jobs(self, store: Store, cells: Sequence[Cell], retry_failed: bool) -> list[Job]:
        """Jobs of the cells that are left."""
        models = {label: as_bytes(model) for label, model in self.models.items()}
        backends, folder = as_bytes(self.backends), store.folder.absolute()
        named = ((name_of(cell, self.definition), cell) for cell in cells)
        return [
            Job(name, cell, folder, models[cell.model], backends, self.machine, retry_failed)
            for name, cell in named
            if not store.is_finished(name, retry_failed)
        ]


def _remaining_s(found: Sequence[Outcome], total: int, elapsed_s: float) -> float:
    """The time that the other cells take, if each takes as long as those that took any."""
    took_time = sum(one.state in ("measured", "failed") for one in found)
    return (total - len(found)) * elapsed_s / took_time if took_time else 0.0


def _is_chosen(device: str, only: str) -> bool:
    return is_named(device, only) or is_named(only, device)


def _outcomes(jobs: Sequence[Job], executor: Executor | None, store: Store) -> Iterator[Outcome]:
    """What becomes of each job, as they end."""
    if executor is None:
        yield from map(run_cell, jobs)
        return
    ended, of_future = SimpleQueue[Future[Outcome]](), dict[Future[Outcome], Job]()
    tries: Counter[str] = Counter()

    def submit(job: Job) -> None:
        tries[job.name] += 1
        future = executor.submit(run_cell, job)
        of_future[future] = job
        future.add_done_callback(ended.put)

    try:
        with _broken_executor():
            for job in jobs:
                submit(job)
            while of_future:
                future = ended.get()
                job = of_future.pop(future)
                outcome = _outcome(future, job, tries[job.name] < _TRIES, store)
                if outcome is None:
                    submit(job)
                else:
                    yield outcome
    finally:
        for future in of_future:
            future.cancel()


def _outcome(future: Future[Outcome], job: Job, may_retry: bool, store: Store) -> Outcome | None:
    """What became of a cell; None where its worker died and it is to be tried again."""
    try:
        return future.result()
    except _ENDS_OF_EXECUTOR:
        raise
    except Exception as exc:  # a job catches errors of its cell; executors have errors of their own
        if isinstance(exc, PrecisionBenchError) and not isinstance(exc, WorkerError):
            raise
        if may_retry:
            return None
        is_ours = isinstance(exc, WorkerError)
        reason = str(exc) if is_ours else f"its worker failed ({one_line(exc)})"
        store.save_failure(job.name, StudyRun(job.cell, 0.0), reason)
        return Outcome(job.name, job.cell, "failed", reason)


@contextlib.contextmanager
def _broken_executor() -> Iterator[None]:
    try:
        yield
    except _ENDS_OF_EXECUTOR as exc:
        raise WorkerError(
            f"the executor broke ({one_line(exc)})",
            "finished cells are kept; run the study again to go on",
        ) from exc
