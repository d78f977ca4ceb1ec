"""Rows restarted in every round, where the device or the host cannot hold all of them at once."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import attrs

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure import finish
from precisionbench.measure.conditions import measured_cores, share_cores
from precisionbench.measure.finish import FinishedRow, Float64Reference
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.replicas import WorkerStarter
from precisionbench.measure.rounds import run_single_round
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run
from precisionbench.measure.schedule import MAX_ROUNDS, RoundStatus, RowState
from precisionbench.measure.time_budget import LEAST_ROUNDS_SHARE, PROFILE, TimeBudget
from precisionbench.measure.worker.client import WorkerBackend

# Building is not counted in the budget. Where it is repeated in every round, all together may take
# this many times the budget.
TIME_LIMIT = 3.0


def measure(run: Run, max_rounds: int = MAX_ROUNDS) -> None:
    """Restart every row in each round, in a random order, until the time is used.

    Args:
        run: takes what is finished; what earlier sessions have given is dropped.
        max_rounds: the most rounds there can be.
    """
    run.finished.clear()
    run.repeats = "round"
    if run.options.shared_cores is None:  # which calls keep several cores busy is not known first
        run.shared_cores = None
    run.collector.record_conditions(shared_cores=run.shared_cores)
    with run.system.worker_pool() as pool, run.interrupts.held():
        starter = WorkerStarter.write(pool, run)
        restarts = _Restarts(run, starter, Float64Reference(pool.folder))
        restarts.run_rounds(max_rounds)
    if note := restarts.time.note():
        run.collector.add_note(note)
    restarts.complete("interrupted" if run.stop_requested() else "budget")


def _monitor_of(run: Run) -> Monitor:
    """A monitor of the CPU; between rounds no worker is left to tell the GPU's processes apart."""
    return Monitor(
        read_cpu=partial(run.system.read_cpu_times, measured_cores(run)),
        read_gpu=tuple,
        record=run.collector.record_round_conditions,
    )


@attrs.define
class _Restarts:
    """The rounds of rows that are restarted.

    Attributes:
        run: takes what is finished.
        starter: starts workers.
        reference: the outputs of the model's layers in float64.
        row_states: of all rows, by name.
        measured_s: seconds of warm-up and blocks so far.
        finishing_s: seconds of passes and profiles so far.
        time: the budget, of which building takes nothing here.
    """

    run: Run
    starter: WorkerStarter
    reference: Float64Reference
    row_states: dict[str, RowState] = attrs.field(factory=dict)
    measured_s: float = 0.0
    finishing_s: float = 0.0
    time: TimeBudget = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.time = self.run.new_budget()

    def run_rounds(self, max_rounds: int) -> None:
        """Measure rounds until the time is used or the user asks to stop; at least one."""
        run = self.run
        end_s = run.system.monotonic_s() + TIME_LIMIT * run.budget_s
        monitor = _monitor_of(run)
        monitor.start()
        for number in range(max_rounds):
            spent_s = self.measured_s + self.finishing_s
            is_over = spent_s >= run.budget_s or run.system.monotonic_s() >= end_s
            if number and (is_over or run.stop_requested()):
                break
            for position, row in enumerate(self._order(is_first=not number)):
                self._measure(row, number, position)
            monitor.after_round(number)
            left_s = max(0.0, end_s - run.system.monotonic_s())
            run.report_round(RoundStatus(number + 1, left_s))
        monitor.finish()

    def _order(self, is_first: bool) -> list[Row]:
        """A random order; in the first round the reference is first, and gives others' limits."""
        order = self.run.rng.sample(self.run.rows, len(self.run.rows))
        reference = self.run.collector.reference
        return sorted(order, key=lambda row: is_first and row.name != reference)

    def _measure(self, row: Row, number: int, position: int) -> None:
        """Start a row, measure one block, and end its worker."""
        if not number:
            self.run.collector.report_row(row, "preparing")
        worker = self.starter.start(row)
        if not number:
            worker.first_call_limit = self.run.first_call_limit(row, self.row_states)
        try:
            prepared = self.run.system.open_backend(worker)
            share_cores(self.run, [prepared])
            self._measure_block(row, prepared, number, position)
            if row.name not in self.run.finished:
                self._finish(row, prepared)
        except PrecisionBenchError as exc:
            self.run.fail(row, exc)
        finally:
            worker.kill()

    def _measure_block(self, row: Row, prepared: WorkerBackend, number: int, position: int) -> None:
        row_state = self.row_states.get(row.name) or RowState(row.name, [])
        begun_s = self.run.system.monotonic_s()
        run_single_round(row_state, prepared, number, position)
        self.row_states[row.name] = row_state
        self.measured_s += self.run.system.monotonic_s() - begun_s
        self.run.collector.record_block(row_state)

    def _finish(self, row: Row, prepared: WorkerBackend) -> None:
        """After a row's first block: passes and profiling, while its worker is there."""
        run, begun_s = self.run, self.run.system.monotonic_s()
        done = FinishedRow.of(self.row_states[row.name], "budget")
        leave_out = self._leave_out(row)
        done.run_probes(output_only=False, passes=run.options.passes, leave_out=leave_out)
        if run.options.evidence and PROFILE not in leave_out and not run.stop_requested():
            finish.profile_rows([(row, done)], self.reference, run.collector, run.stop_requested)
        run.finished[row.name] = [done]
        finish.close([attrs.evolve(done, replicas=[prepared])])
        self.finishing_s += run.system.monotonic_s() - begun_s

    def _leave_out(self, row: Row) -> Collection[str]:
        """What there is no time for, in the row's share of the half of the budget for that."""
        budget = self.time
        share_s = budget.budget_s * (1 - LEAST_ROUNDS_SHARE) / len(self.run.collector.rows)
        return budget.leave_out_of([self.row_states[row.name]], share_s)

    def complete(self, ended_by: str) -> None:
        """Give the finished rows the blocks of all rounds.

        Args:
            ended_by: what ended the rounds.
        """
        for name, (done,) in self.run.finished.items():
            row_state = self.row_states[name]
            done.measurement, done.replicas = row_state.measurement(ended_by), row_state.replicas
