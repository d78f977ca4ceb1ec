"""The replicas of each row: how many there are, and how they are prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from precisionbench.backends import Backend
from precisionbench.errors import FOREIGN_ERRORS, OutOfMemoryError, PrecisionBenchError
from precisionbench.measure.guard import explained
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.protocol import KnownCalls
from precisionbench.system.memory import worker_bytes

# A backend that takes longer than this to build gets one replica only.
_LONG_BUILD_S = 60.0
# A further replica needs this many times the device memory that the first one took.
_HEADROOM = 1.2
# Copies of the model in all workers may take this share of the device's free memory.
_SHARE_OF_COPIES = 0.25
# Copies of the weights besides each worker's own: the file that workers read them from, which may
# be in memory, and casts, of which one worker at a time makes one (docs/measuring.md).
_COPIES_ONCE = 2
# The float64 reference: its own copy of the weights, and the one that is being used in float64.
_COPIES_IN_EVIDENCE = 1
# Files that a worker keeps open in this process, at most, and what the rest may need meanwhile.
_DESCRIPTORS = 4
_OTHER_DESCRIPTORS = 100
# CPU cores that a compiler keeps busy for each replica that it builds for a GPU.
_CORES_OF_A_BUILD = 2
_POLL_S = 0.05  # to look at all workers that are prepared at the same time


class DoesNotFitError(Exception):
    """The device or the host cannot hold one worker of every row."""


class CrowdedError(Exception):
    """A row ran out of memory with the others in it; alone it may fit.

    Attributes:
        row: the row.
    """

    def __init__(self, row: Row) -> None:
        super().__init__(row.name)
        self.row = row


@attrs.frozen
class WorkerStarter:
    """Starts the workers of rows in a pool, from files that hold the workloads and the backends.

    Attributes:
        pool: where workers are started.
        workloads: the file of each model's workload.
        backends: the file of each row's backend.
    """

    pool: WorkerPool
    workloads: Mapping[str, Path]
    backends: Mapping[str, Path]

    @classmethod
    def write(cls, pool: WorkerPool, run: Run) -> WorkerStarter:
        """Write the files.

        Args:
            pool: where workers are started.
            run: holds the workloads and the rows.

        Raises:
            WorkloadError: a model cannot be sent to a worker.
        """
        workloads = {
            model: pool.write_workload(f"workload-{index}.pt", workload)
            for index, (model, workload) in enumerate(run.workloads.items())
        }
        backends = {
            row.name: pool.write(f"backend-{index}.pt", row.require_backend())
            for index, row in enumerate(run.rows)
        }
        return cls(pool, workloads, backends)

    def with_backends(self, rows: Sequence[Row]) -> WorkerStarter:
        """Starts workers of other rows on the same workloads.

        Args:
            rows: their backends are written to files.
        """
        written = {
            row.name: self.pool.write(f"further-{index}.pt", row.require_backend())
            for index, row in enumerate(rows)
        }
        return attrs.evolve(self, backends=written)

    def start(self, row: Row, with_model: bool = False) -> Worker:
        """Start one worker of a row.

        Args:
            row: the row.
            with_model: let it copy the model to the device at once.
        """
        return self.pool.start(self.workloads[row.model], self.backends[row.name], with_model)


def replica_count(run: Run) -> int:
    """How many replicas each row gets: fewer than wanted where the host has no room for more.

    Args:
        run: takes a note where there are fewer.

    Raises:
        DoesNotFitError: the host cannot hold one worker of every row.
    """
    wanted = run.options.replicas_on(run.device.type)
    found = _most_workers(run)
    if found is None:
        return wanted
    fit, reason, remedy = found
    if fit < len(run.rows):
        raise DoesNotFitError(f"{reason} only {fit} workers at once")
    count = max(1, min(wanted, fit // len(run.rows)))
    if count < wanted:
        run.collector.add_note(
            f"{reason} only {fit} workers at once, so each row has {count} replicas and not "
            f"{wanted}; use fewer backends, or {remedy}"
        )
    return count


def _most_workers(run: Run) -> tuple[int, str, str] | None:
    """The most workers at once, what limits them, and what would help; None without a limit."""
    weights_bytes, inputs_bytes = _weights_bytes(run), _inputs_bytes(run)
    bases = [worker_bytes(run.device, row.require_backend().tunes_by_timing) for row in run.rows]
    each_bytes = math.ceil(sum(bases) / max(1, len(bases))) + weights_bytes + inputs_bytes
    copies = _COPIES_ONCE + (_COPIES_IN_EVIDENCE if run.options.evidence else 0)
    fit = run.system.workers_that_fit(each_bytes, copies * sum(_weights_by_model(run)))
    left = run.system.descriptors_left()
    limits = []
    if fit is not None:
        limits.append((fit, "the host's memory holds", "free memory"))
    if left is not None:
        most = max(0, left - _OTHER_DESCRIPTORS) // _DESCRIPTORS
        limits.append((most, "the limit of open files allows", "raise the limit (ulimit -n)"))
    return min(limits, default=None)


def _weights_by_model(run: Run) -> list[int]:
    return [4 * (workload.info.parameters or 0) for workload in run.workloads.values()]


def _weights_bytes(run: Run) -> int:
    """The weights of the largest model."""
    return max(_weights_by_model(run))


def _inputs_bytes(run: Run) -> int:
    """The inputs of the row with the largest ones, twice: as they are, and cast."""
    return max(_inputs_bytes_of(run, row) for row in run.rows)


def _inputs_bytes_of(run: Run, row: Row) -> int:
    info = run.workloads[row.model].info
    larger = (row.require_backend().batch_size or 0) / (info.batch_size or 1)
    elements = sum(math.prod(tensor.shape) for tensor in info.inputs)
    return math.ceil(8 * elements * max(1.0, larger))


def device_holds_copies(run: Run, workers: int) -> bool:
    """Whether the device easily holds a copy of the model for each worker.

    Else a worker copies it when it prepares, so that rows which do not fit leave others their room.

    Args:
        run: holds the workloads.
        workers: how many there are.
    """
    free = run.system.free_device_bytes(run.device)
    wanted = workers * (_weights_bytes(run) + _inputs_bytes(run))
    return free is None or wanted <= _SHARE_OF_COPIES * free


def open_replicas(
    run: Run, workers: Mapping[str, Sequence[Worker]], session: int
) -> dict[str, RowState]:
    """Prepare the backends of all workers.

    The first replica of each row is prepared alone, so that its build time is its own. Further ones
    are prepared side by side, unless their backends tune by timing or memory may be short; on a CPU
    they would compete for its cores. Where all rows are built at the same time, further replicas
    wait for the first of their row only, whichever is ready first: what it has compiled is in the
    compiler's cache. Where there are two cores for each build, they do not wait: for ResNet-50 on
    an H200, 20 of the 30 seconds of a build are spent again although its code is in the cache.

    Args:
        run: rows that cannot be prepared are removed from it.
        workers: the same number for each row.
        session: which repetition of the whole.

    Returns:
        The state of each row that is ready, by name.

    Raises:
        CrowdedError: a row ran out of memory with the others in it.
    """
    opening = _Opening(run, session)
    if run.options.build_together:
        opening.open_first_together(workers)
    else:
        for row in list(run.rows):
            run.collector.report_row(row, "preparing")
            opening.open_first(row, workers[row.name])
        if run.device.type != "cpu":
            opening.begin_beside_each_other(workers)
    for replica in range(1, max(map(len, workers.values()))):
        for row in run.rows:
            opening.open_further(row, workers[row.name][replica])
    if run.options.build_together:
        opening.measure_alone()
    return opening.row_states


def _must_be_alone(backend: Backend) -> bool:
    """Whether other work would change what a backend chooses while it is prepared."""
    return backend.tunes_by_timing or backend.cudnn_benchmark


def _builds(row: Row) -> bool:
    """Whether preparing a row compiles or tunes something."""
    return row.require_backend().tunes_by_timing


def _calibrated(prepared: WorkerBackend, known: KnownCalls | None) -> KnownCalls:
    """Measure a replica's calls, or take over what is known of an earlier one with that clock."""
    opening = prepared.opening
    if known is None or known.labels != opening.labels:
        prepared.recalibrate()
    else:
        prepared.opening = attrs.evolve(opening, call_s=known.call_s, cores_busy=known.cores_busy)
    return KnownCalls.of(prepared.opening)


@attrs.define
class _Opening:
    """Prepares the replicas of all rows; the first of each row shows what others need not measure.

    Attributes:
        run: rows that cannot be prepared are removed from it.
        session: which repetition of the whole.
        row_states: of the rows that are prepared, by name.
        taken_bytes: device memory that the first replica of each row took.
    """

    run: Run
    session: int
    row_states: dict[str, RowState] = attrs.field(factory=dict)
    taken_bytes: dict[str, int] = attrs.field(factory=dict)

    def open_first(self, row: Row, workers: Sequence[Worker]) -> None:
        """Prepare the first replica of a row; the row fails where that fails."""
        run = self.run
        workers[0].first_call_limit = run.first_call_limit(row, self.row_states)
        before = run.system.free_device_bytes(run.device) or 0
        try:
            prepared = run.system.open_backend(workers[0], run.step_reporter(row))
        except FOREIGN_ERRORS as exc:
            for worker in workers:
                worker.kill()
            self._fail(row, explained(exc))
        else:
            after = run.system.free_device_bytes(run.device) or 0
            self.taken_bytes[row.name] = max(0, before - after)
            self.row_states[row.name] = RowState(row.name, [prepared], self.session)

    def open_first_together(self, workers: Mapping[str, Sequence[Worker]]) -> None:
        """Prepare the first replicas of all rows, and begin each row's others meanwhile or then."""
        at_once = self._has_cores_for_all(workers)
        for row in self.run.rows:
            self.run.collector.report_row(row, "preparing")
            workers[row.name][0].on_step = self.run.step_reporter(row)
            for worker in workers[row.name] if _builds(row) and at_once else workers[row.name][:1]:
                if not worker.is_opening:
                    worker.begin_open()
        waiting = list(self.run.rows)
        while waiting:
            row = self._first_ready(waiting, workers)
            waiting.remove(row)
            self.open_first(row, workers[row.name])
            self.begin_further(row, workers[row.name])

    def _has_cores_for_all(self, workers: Mapping[str, Sequence[Worker]]) -> bool:
        """Whether there are cores and memory to build all replicas at the same time."""
        builds = sum(len(workers[row.name]) for row in self.run.rows if _builds(row))
        has_cores = _CORES_OF_A_BUILD * builds <= self.run.system.cores()
        has_memory = device_holds_copies(self.run, sum(map(len, workers.values())))
        return self.run.device.type != "cpu" and has_cores and has_memory

    def _first_ready(self, waiting: Sequence[Row], workers: Mapping[str, Sequence[Worker]]) -> Row:
        """Wait until one of some rows is ready or has failed.

        A row whose first call has a limit is not asked before the row that gives the limit.
        """
        references = {self.run.collector.reference_of(row.name) for row in waiting}
        first_ones = [row for row in waiting if row.name in references or not row.may_be_left_out]
        asked = first_ones or waiting
        while True:
            for row in asked:
                first = workers[row.name][0]
                first.first_call_limit = self.run.first_call_limit(row, self.row_states)
                if first.is_ready(_POLL_S / len(asked)):
                    return row

    def begin_beside_each_other(self, workers: Mapping[str, Sequence[Worker]]) -> None:
        """Begin to prepare further replicas of all rows, where the device holds all of them."""
        rows = [row for row in self.run.rows if not _must_be_alone(row.require_backend())]
        free = self.run.system.free_device_bytes(self.run.device)
        wanted = sum(self.taken_bytes[row.name] * (len(workers[row.name]) - 1) for row in rows)
        if free is not None and free < _HEADROOM * wanted:
            return
        for row in rows:
            if self.row_states[row.name].replicas[0].opening.build_s <= _LONG_BUILD_S:
                self.begin_further(row, workers[row.name])

    def begin_further(self, row: Row, workers: Sequence[Worker]) -> None:
        """Begin to prepare further replicas of a row whose first is ready."""
        if row.name in self.row_states:
            known = KnownCalls.of(self.row_states[row.name].replicas[0].opening)
            for worker in workers[1:]:
                if not worker.is_opening:
                    worker.begin_open(known)

    def open_further(self, row: Row, worker: Worker) -> None:
        """Prepare a further replica of a row, unless there is a reason against it."""
        row_state = self.row_states[row.name]
        reason = "" if worker.is_opening else self._reason_against(row)
        reason = reason or self._add(row, worker, row_state)
        if reason:
            worker.kill()
            self._warn_of_few(row_state, reason)

    def _reason_against(self, row: Row) -> str:
        """Why a row should have no further replica; empty where it should."""
        free = self.run.system.free_device_bytes(self.run.device)
        build_s = self.row_states[row.name].replicas[0].opening.build_s
        if build_s > _LONG_BUILD_S:
            return f"building takes {build_s:.0f} s"
        if free is not None and free < _HEADROOM * self.taken_bytes[row.name]:
            return "the device's memory is full"
        return ""

    def _add(self, row: Row, worker: Worker, row_state: RowState) -> str:
        """Prepare a further replica; why that failed, or empty."""
        reporter = self.run.step_reporter(row, len(row_state.replicas))
        known = KnownCalls.of(row_state.replicas[0].opening)
        try:
            row_state.replicas.append(self.run.system.open_backend(worker, reporter, known))
        except FOREIGN_ERRORS as exc:
            return f"another one failed ({explained(exc).reason})"
        return ""

    def measure_alone(self) -> None:
        """After all were built at the same time: measure each row without the others' building."""
        for row in [row for row in self.run.rows if row.require_backend().is_timed]:
            row_state = self.row_states[row.name]
            known: KnownCalls | None = None
            for prepared in list(row_state.replicas):
                try:
                    known = _calibrated(prepared, known)
                except FOREIGN_ERRORS as exc:
                    prepared.worker.kill()
                    self._leave_out(row, row_state, prepared, explained(exc))
            if not row_state.replicas:
                del self.row_states[row.name]

    def _leave_out(
        self, row: Row, row_state: RowState, prepared: WorkerBackend, error: PrecisionBenchError
    ) -> None:
        """Drop a replica that failed; the row fails where it was the last one."""
        row_state.replicas.remove(prepared)
        if row_state.replicas:
            self._warn_of_few(row_state, f"another one failed ({error.reason})")
        else:
            self._fail(row, error)

    def _fail(self, row: Row, error: PrecisionBenchError) -> None:
        if isinstance(error, OutOfMemoryError) and len(self.run.rows) > 1:
            raise CrowdedError(row) from error
        self.run.fail(row, error)

    def _warn_of_few(self, row_state: RowState, reason: str) -> None:
        known = "; the interval includes the run-to-run variance known for this kind of device"
        count = len(row_state.replicas)
        row_state.warnings.append(
            f"only {'one process' if count == 1 else f'{count} processes'}, because {reason}"
            f"{known if self.run.noise_floor else ''}"
        )
