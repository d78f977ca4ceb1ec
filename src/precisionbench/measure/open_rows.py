"""Rows that stay prepared in their workers, and are measured together as often as needed."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import attrs

from precisionbench.errors import (
    FOREIGN_ERRORS,
    MeasurementError,
    PrecisionBenchError,
    SlowCallError,
)
from precisionbench.measure.collector import Collector
from precisionbench.measure.compare import comparison_data, exclusive, header_of
from precisionbench.measure.conditions import (
    leave_all_cores_to_busy_calls,
    measured_cores,
    share_cores,
)
from precisionbench.measure.kept import measure_rows
from precisionbench.measure.options import Options
from precisionbench.measure.planning import Plan
from precisionbench.measure.replicas import (
    CrowdedError,
    WorkerStarter,
    device_holds_copies,
    open_replicas,
)
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run, System
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.first_call_limit import FirstCallLimit, WarmCallLimit
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker
from precisionbench.model.workload import Workload
from precisionbench.results import ComparisonData
from precisionbench.results.progress import OnProgress
from precisionbench.system import cpu_affinity

_POLL_S = 0.05  # for each row that is being prepared
_OPENING = Options(replicas=1, evidence=False, passes=False, build_together=True)


class LateError(MeasurementError):
    """A row was not prepared when the time was over, so its worker was ended."""


@attrs.define
class OpenRows:
    """Rows of one workload that stay prepared, each in one or more workers.

    Attributes:
        workload: the model and inputs.
        pool: where workers are started.
        system: what runs use of the system.
        on_progress: as for `compare`.
        replicas: the prepared workers of each open row, by its name.
    """

    workload: Workload
    pool: WorkerPool
    system: System
    on_progress: OnProgress | None
    replicas: dict[str, list[WorkerBackend]] = attrs.field(factory=dict)
    _rows: dict[str, Row] = attrs.field(factory=dict)
    _begun: dict[str, Worker] = attrs.field(factory=dict)
    _starter: WorkerStarter = attrs.field(init=False)
    _number: Iterator[int] = attrs.field(factory=itertools.count)
    _leaves_all_cores: bool = False  # the first row's calls keep several busy

    def __attrs_post_init__(self) -> None:
        self._starter = WorkerStarter(
            self.pool, {"": self.pool.write_workload("workload.pt", self.workload)}, {}
        )

    @classmethod
    @contextlib.contextmanager
    def of(cls, workload: Workload, on_progress: OnProgress | None) -> Iterator[OpenRows]:
        """Rows of a workload; all workers end with the context.

        Args:
            workload: the model and inputs.
            on_progress: as for `compare`.

        Raises:
            WorkloadError: the model cannot be sent to a worker.
            OutputError: the folder for temporary files (TMPDIR) cannot hold the model.
        """
        with exclusive(_OPENING, workload.libraries) as server, WorkerPool(server) as pool:
            system = System(worker_pool=partial(WorkerPool, server))  # for checks of engines
            yield cls(workload, pool, system, on_progress)

    def begin(self, rows: Sequence[Row], limits: Mapping[str, WarmCallLimit]) -> None:
        """Begin to prepare a worker of each row while others are measured; `open` takes it.

        They use other CPU cores than rows that are measured, where those share some.

        Args:
            rows: what to prepare.
            limits: as for `open`.
        """
        starter = self._with_files(rows)
        others = self._cores_of_builds(rows)
        begun = {row.name: starter.start(row) for row in rows}
        self._begun |= begun
        for name, worker in begun.items():
            worker.wait_until_imported()
            if others:
                worker.set_cpu_affinity(others)
            worker.warm_call_limit = limits.get(name)
            worker.begin_open()

    def _cores_of_builds(self, rows: Sequence[Row]) -> list[int]:
        """Cores on which nothing is measured; empty where rows are measured on all of them."""
        run = self._run(rows, rows[0].name, _OPENING)
        if run.shared_cores is None:
            return []
        measured = measured_cores(run)
        return [core for core in cpu_affinity.usable_cores() if core not in measured]

    def has_room(self, row: Row, workers: int) -> bool:
        """Whether the device easily holds a copy of the model for each of some workers.

        Args:
            row: with the batch size of all.
            workers: how many.
        """
        return device_holds_copies(self._run([row], row.name, _OPENING), workers)

    def is_begun(self, name: str) -> bool:
        """Whether a row was begun and is not opened yet.

        Args:
            name: of the row.
        """
        return name in self._begun

    def is_ready(self, name: str) -> bool:
        """Whether a row that was begun is ready, or has failed; `open` says which.

        Args:
            name: of the row.
        """
        return self._begun[name].is_ready(0.0)

    def wait_ready(self, end_s: float) -> None:
        """Wait until one of the rows that were begun is ready or has failed.

        Args:
            end_s: until when to wait at most, in seconds of `time.monotonic`.
        """
        while self._begun and time.monotonic() < end_s:
            if any(worker.is_ready(_POLL_S) for worker in self._begun.values()):
                return

    def open(
        self,
        rows: Sequence[Row],
        end_s: float,
        limits: Mapping[str, WarmCallLimit] = MappingProxyType({}),
    ) -> dict[str, PrecisionBenchError]:
        """Prepare one more worker of each row, all side by side.

        Rows that do not fit on the device beside each other are prepared one after another.

        Args:
            rows: what to prepare; a row that is open already gets a further worker, and one that
                was begun the worker that has begun.
            end_s: when this has to end, in seconds of `time.monotonic`; workers that are
                not ready then are ended, and the others stay.
            limits: how long the warm calls of rows may take, by name; others may take any time.

        Returns:
            Why rows could not be prepared, by name; a `LateError` where the time was over, and a
            `SlowCallError` where a call took too long.
        """
        errors: dict[str, PrecisionBenchError] = {}
        begun = [row for row in rows if row.name in self._begun]
        for row in begun:  # none of them is lost where another one does not fit
            errors |= self._open_together([row], end_s, limits)
        if others := [row for row in rows if row not in begun]:
            errors |= self._open_new(others, end_s, limits)
        return errors

    def _open_new(
        self, rows: Sequence[Row], end_s: float, limits: Mapping[str, WarmCallLimit]
    ) -> dict[str, PrecisionBenchError]:
        """Prepare rows side by side, or one after another where they do not fit so."""
        try:
            return self._open_together(rows, end_s, limits)
        except CrowdedError:
            errors: dict[str, PrecisionBenchError] = {}
            for row in rows:
                errors |= self._open_together([row], end_s, limits)
            return errors

    def _open_together(
        self, rows: Sequence[Row], end_s: float, limits: Mapping[str, WarmCallLimit]
    ) -> dict[str, PrecisionBenchError]:
        run = self._run(rows, rows[0].name, _OPENING)
        run.leave_out_unavailable()
        self._end_begun(row.name for row in rows if row not in run.rows)
        if not run.rows:
            return run.collector.errors
        run.first_call_limits = self._first_call_limits(run.rows, limits)
        workers = self._started(run.rows)
        for name, (worker,) in workers.items():
            worker.warm_call_limit = limits.get(name)
        with self._killed_unless_kept(workers), _killed_at(end_s, workers) as late:
            for (worker,) in workers.values():  # what is being built elsewhere is not waited for
                worker.wait_until_loaded()
            states = open_replicas(run, workers, 0)
            self._give_cores(run, states.values())
            for name, state in states.items():
                self.replicas.setdefault(name, []).extend(state.replicas)
        self._rows |= {row.name: row for row in rows if row.name in states}
        return _errors(run.collector, late)

    def _give_cores(self, run: Run, states: Collection[RowState]) -> None:
        """Pin workers to shared cores, unless calls of the first row, the reference, need more."""
        if not self._rows and run.shared_cores is not None:
            leave_all_cores_to_busy_calls(run, states)
            self._leaves_all_cores = run.shared_cores is None
        for state in states:
            share_cores(run, state.replicas, state.warnings.append)
            if self._leaves_all_cores:  # those that were built ahead have only some
                for prepared in state.replicas:
                    prepared.worker.set_cpu_affinity(cpu_affinity.usable_cores())

    def _first_call_limits(
        self, rows: Sequence[Row], limits: Mapping[str, WarmCallLimit]
    ) -> dict[str, FirstCallLimit]:
        """How long first calls may take of rows that compile nothing; on a CPU each is alone."""
        device_type = self.workload.device.type
        found = {}
        for row in rows:
            limit = limits.get(row.name)
            leader = self.replicas.get(limit.leader) if limit else None
            if limit and leader and not row.require_backend().tunes_by_timing:
                together = 1 if device_type == "cpu" else limit.together
                first_call_s = leader[0].opening.first_call_s
                found[row.name] = FirstCallLimit(
                    limit.leader, limit.leader_call_s, first_call_s, together, device_type
                )
        return found

    def _started(self, rows: Sequence[Row]) -> dict[str, list[Worker]]:
        """A worker of each row: that which was begun, or a new one."""
        starter = self._with_files([row for row in rows if row.name not in self._begun])
        new = {row.name: starter.start(row) for row in rows if row.name not in self._begun}
        return {row.name: [new.get(row.name) or self._begun.pop(row.name)] for row in rows}

    def _with_files(self, rows: Sequence[Row]) -> WorkerStarter:
        files = {
            row.name: self.pool.write(f"row-{next(self._number)}.pt", row.require_backend())
            for row in rows
        }
        return attrs.evolve(self._starter, backends=files)

    @contextlib.contextmanager
    def _killed_unless_kept(self, workers: Mapping[str, Sequence[Worker]]) -> Iterator[None]:
        try:
            yield
        finally:
            kept = [prepared.worker for few in self.replicas.values() for prepared in few]
            for worker in (worker for few in workers.values() for worker in few):
                if worker not in kept:
                    worker.kill()

    def _run(
        self,
        rows: Sequence[Row],
        reference: str,
        options: Options,
        on_progress: OnProgress | None = None,
    ) -> Run:
        batch_size = self.workload.info.batch_size
        collector = Collector(rows, reference, batch_size, (), on_progress or self.on_progress)
        run = Run({"": self.workload}, collector, options, self.system)
        run.shared_cores = None if self._leaves_all_cores else run.shared_cores
        return run

    def measure(self, names: Sequence[str], reference: str, options: Options) -> ComparisonData:
        """Measure open rows in common rounds.

        Args:
            names: of the rows.
            reference: the row that the others are compared with; one of them.
            options: how to measure.

        Returns:
            The rows; one whose worker failed is among the failures, and is open no longer.

        Raises:
            KeyboardInterrupt: the user stopped it before the reference had a round.
        """
        rows = [self._rows[name] for name in names]
        run = self._run(rows, reference, options)
        with run.interrupts.held():
            run.interrupts.also_call(self.pool.stop)
            measure_rows(run, [RowState(name, list(self.replicas[name])) for name in names])
        self.close(run.collector.errors)
        if run.stop_requested() and reference not in run.collector.results:
            raise KeyboardInterrupt
        header = header_of(Plan.of_rows(self.workload, rows, reference, options))
        header.update(shared_cores=run.shared_cores)
        return comparison_data(header, rows, run.collector)

    def _end_begun(self, names: Iterable[str]) -> None:
        for name in names:
            if worker := self._begun.pop(name, None):
                worker.kill()

    def close(self, names: Sequence[str] | Mapping[str, object]) -> None:
        """End the workers of rows that are not needed any more.

        Args:
            names: of the rows.
        """
        self._end_begun(names)
        for name in names:
            for prepared in self.replicas.pop(name, []):
                with contextlib.suppress(*FOREIGN_ERRORS):
                    prepared.worker.kill()


def _errors(collector: Collector, late: Collection[str]) -> dict[str, PrecisionBenchError]:
    """Why rows are not open, by name."""
    slow = {
        name: SlowCallError(reason)
        for reason, names in collector.left_out.items()
        for name in names
    }
    failed = {name: _late() if name in late else e for name, e in collector.errors.items()}
    return {**slow, **failed}


def _late() -> PrecisionBenchError:
    return LateError("it was not built when the time was over", "use a larger budget_s")


@contextlib.contextmanager
def _killed_at(end_s: float, workers: Mapping[str, Sequence[Worker]]) -> Iterator[set[str]]:
    """Kill workers that are busy at a time; gives the names of their rows."""
    late: set[str] = set()

    def kill() -> None:
        for name, few in workers.items():
            for worker in few:
                if worker.is_busy:
                    late.add(name)
                    worker.begin_kill()

    timer = threading.Timer(max(0.0, end_s - time.monotonic()), kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
