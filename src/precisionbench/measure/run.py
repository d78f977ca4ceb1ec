"""One run in worker processes: which rows are still measured, and what it uses of the system."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import torch

from precisionbench._internal.interrupts import Interrupts
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.availability import reasons_against
from precisionbench.measure.budget_clock import BudgetClock
from precisionbench.measure.collector import Collector
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.guard import warned
from precisionbench.measure.live_speedups import LiveSpeedups
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RoundStatus, RowState
from precisionbench.measure.time_budget import TimeBudget
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.first_call_limit import FirstCallLimit
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.model.workload import Workload
from precisionbench.system import cpu_affinity, memory, nvml
from precisionbench.system.cpu_times import CpuTimes, read_cpu_times
from precisionbench.system.open_files import descriptors_left
from precisionbench.system.telemetry import Telemetry, open_telemetry

if TYPE_CHECKING:  # it imports this module
    from precisionbench.measure.replicas import WorkerStarter


@attrs.frozen
class System:
    """What a run uses of the system, so that a test can hand in its own.

    Attributes:
        worker_pool: makes the pool in which workers are started.
        open_backend: prepares the backend of a worker, as the initializer of `WorkerBackend` does.
        monotonic_s: a clock, in seconds.
        workers_that_fit: how many workers the host's memory holds.
        descriptors_left: how many files this process may still open.
        free_device_bytes: memory left on a GPU; None elsewhere.
        compute_processes: names of the processes that compute on a GPU, by process id.
        read_cpu_times: reads the CPU time that cores and this process have spent so far.
        cores: how many CPU cores this process may use.
        default_shared_cores: how many CPU cores workers share where the user does not say.
        open_telemetry: opens what reads the state of a device.
    """

    worker_pool: Callable[[], AbstractContextManager[WorkerPool]] = WorkerPool
    open_backend: Callable[..., WorkerBackend] = WorkerBackend
    monotonic_s: Callable[[], float] = time.monotonic
    workers_that_fit: Callable[[int, int], int | None] = memory.workers_that_fit
    descriptors_left: Callable[[], int | None] = descriptors_left
    free_device_bytes: Callable[[torch.device], int | None] = memory.free_device_bytes
    compute_processes: Callable[[torch.device], Mapping[int, str]] = nvml.processes_on
    read_cpu_times: Callable[[Collection[int]], CpuTimes | None] = read_cpu_times
    cores: Callable[[], int] = lambda: len(cpu_affinity.usable_cores())
    default_shared_cores: Callable[[str], int | None] = cpu_affinity.default_shared_cores
    open_telemetry: Callable[[torch.device], AbstractContextManager[Telemetry]] = open_telemetry


@attrs.define
class Run:
    """One run in worker processes while it goes on.

    Attributes:
        workloads: the model and inputs, by the name of the model, which is empty where there is
            only one; all on the same device.
        collector: holds all rows, and takes their results.
        options: how to measure.
        system: what the run uses of the system.
        after_rows: called once all rows are finished, while their workers still run, with the run
            and what starts further workers; not where rows were restarted or the user stopped.
        rows: rows that are still measured; those that fail are removed.
        finished: what each session has given for a row, by the row's name.
        repeats: what is repeated: each `session`, or each `round`.
        shared_cores: how many CPU cores all workers share while they are measured; None: all.
        rng: draws the orders.
        interrupts: whether the user has asked to stop.
        clock: of the budgets: it does not count the time of what fails.
        first_call_limits: how long the first calls of rows may take, by name, where that is known
            before any of them is prepared.
        time: the budget of the current session since its warm-up; None before the first.
    """

    workloads: Mapping[str, Workload]
    collector: Collector
    options: Options
    system: System = attrs.field(factory=System)
    after_rows: Callable[[Run, WorkerStarter], object] = lambda _, __: None
    rows: list[Row] = attrs.field(init=False)
    finished: dict[str, list[FinishedRow]] = attrs.field(factory=dict, init=False)
    repeats: str = attrs.field(default="session", init=False)
    shared_cores: int | None = attrs.field(init=False)
    rng: random.Random = attrs.field(init=False)
    interrupts: Interrupts = attrs.field(init=False)
    clock: BudgetClock = attrs.field(init=False)
    first_call_limits: Mapping[str, FirstCallLimit] = attrs.field(factory=dict, init=False)
    time: TimeBudget | None = attrs.field(default=None, init=False)
    _live_speedups: LiveSpeedups = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        collector, wanted = self.collector, self.options.shared_cores
        default = self.system.default_shared_cores(self.device.type)
        self.rows = list(collector.rows)
        self.shared_cores = default if wanted is None else wanted or None
        self.rng = random.Random(self.any_workload.seed)
        self.interrupts = Interrupts(lambda: collector.report_run("interrupted"))
        self.clock = BudgetClock(self.system.monotonic_s)
        self._live_speedups = LiveSpeedups(collector.reference_of, self.noise_floor)

    @property
    def any_workload(self) -> Workload:
        """One of the workloads, for what all of them share: device and seed."""
        return next(iter(self.workloads.values()))

    @property
    def device(self) -> torch.device:
        """Where the models run."""
        return self.any_workload.device

    @property
    def noise_floor(self) -> float:
        """Known run-to-run standard deviation of the log on this device."""
        return self.options.noise_floor_on(self.device.type)

    @property
    def budget_s(self) -> float:
        """Seconds for all that is done with prepared rows, in all sessions."""
        return self.options.total_budget_s(self.device.type, len(self.collector.rows))

    def stop_requested(self) -> bool:
        """Whether the user has asked to stop."""
        return self.interrupts.requested

    def begin_session(self, row_states: Sequence[RowState]) -> TimeBudget:
        """Let the budget of a session begin, and correct the estimate of the time that is left.

        Args:
            row_states: of the rows that are ready.
        """
        self.time = self.new_budget(1 / self.options.sessions)
        self.collector.plan_rounds(self.time, row_states)
        return self.time

    def new_budget(self, share: float = 1.0) -> TimeBudget:
        """The budget of a session that begins now; the first one also has passes and profile.

        Args:
            share: which part of the whole budget it has.
        """
        first, options = not self.finished, self.options
        return TimeBudget(
            self.budget_s * share,
            self.device.type,
            options.pass_names if first else (),
            options.evidence and first,
            self.clock,
            share,
        )

    def guarded(self, what: str) -> AbstractContextManager[None]:
        """Turn an exception of any kind within into a note, once there is something to keep.

        Args:
            what: what is done, for the note.
        """
        return warned(self.collector.add_note, f"{what} failed; the measurement is kept")

    def leave_out_of(self, row: Row, row_states: Mapping[str, RowState]) -> Collection[str]:
        """What is not done with a row after its rounds, as the budget has no time for it.

        Args:
            row: the rows from it on have not been measured besides their latency.
            row_states: of all rows.
        """
        if self.time is None:
            return ()
        to_come = [row_states[other.name] for other in self.rows[self.rows.index(row) :]]
        return self.time.leave_out(to_come, [*row_states.values()])

    def leave_out_unavailable(self) -> None:
        """Leave out rows whose backends cannot run on this machine."""
        for row in list(self.rows):
            if row.error is not None:
                self.fail(row, row.error)
        backends = [row.require_backend() for row in self.rows]
        errors = reasons_against(backends, self.system.worker_pool)
        for row, error in zip(list(self.rows), errors, strict=True):
            if error is not None:
                self.fail(row, error)

    def fail(self, row: Row, error: PrecisionBenchError) -> None:
        """Measure a row no longer; what earlier sessions or rounds gave for it is kept.

        Args:
            row: the row.
            error: why.
        """
        self.rows.remove(row)
        if row.name in self.finished:
            text = f"a later {self.repeats} failed: {error}"
            self.finished[row.name][0].warnings.append(text)
            self.collector.report_failure(row, text)
        else:
            self.collector.add_failure(row, error)

    def first_call_limit(
        self, row: Row, row_states: Mapping[str, RowState]
    ) -> FirstCallLimit | None:
        """How long the first call of a row may take; None where it was called before.

        Args:
            row: to be prepared.
            row_states: of rows that are prepared; the row's reference is among them, where it
                works.
        """
        if limit := self.first_call_limits.get(row.name):
            return limit
        if not row.may_be_left_out or row.name in self.finished or not row_states:
            return None
        reference = self.collector.reference_of(row.name)
        row_state = row_states.get(reference) or next(iter(row_states.values()))
        first_call_s = row_state.replicas[0].opening.first_call_s
        return FirstCallLimit(
            row_state.name, row_state.call_s, first_call_s, device_type=self.device.type
        )

    def step_reporter(self, row: Row, replica: int = 0) -> Callable[[str], object]:
        """A callback that reports the steps of preparing a replica.

        Args:
            row: the row.
            replica: its number, from 0.
        """
        which = f"process {replica + 1}, " if replica else ""
        return lambda step: self.collector.report_row(row, "preparing", step=f"{which}{step}")

    def report_round(self, status: RoundStatus, row_states: Sequence[RowState] = ()) -> None:
        """Report a finished round, and rows that have failed in it.

        Args:
            status: how far the rounds are.
            row_states: of all rows, for the speed-ups so far.
        """
        if self.collector.reports_progress:
            self.collector.progress.do(partial(self._report_round, status, row_states))

    def _report_round(self, status: RoundStatus, row_states: Sequence[RowState]) -> None:
        errors = {state.name: str(state.error) for state in row_states if state.error}
        for row in self.rows:
            if row.name in errors:
                self.collector.report_failure(row, errors[row.name])
        speedups = self._live_speedups.update(row_states)
        self.collector.report_run(
            "measuring", status.round, self.options.max_rounds, status.remaining_s, speedups
        )
