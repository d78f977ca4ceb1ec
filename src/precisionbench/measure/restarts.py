"""Rows restarted in every round, where the device or the host cannot hold all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import attrs

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.measure import finish
from precisionbench.measure.conditions import measured_cores, share_cores
from precisionbench.measure.finish import FinishedRow, Float64Reference
from precisionbench.measure.guard import explained
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.replicas import WorkerStarter
from precisionbench.measure.rounds import run_single_round
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run
from precisionbench.measure.schedule import MAX_ROUNDS, RoundStatus, RowState
from precisionbench.measure.time_budget import LEAST_ROUNDS_SHARE, PROFILE, TimeBudget
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.process import Worker

# Building is not counted in the budget. Where it is repeated in every round, all together may take
# this many times the budget.
TIME_LIMIT = 3.0


def measure(run: Run, max_rounds: int = MAX_ROUNDS) -> None:
    """Restart every row in each round, in a random order, until the time is used.

    Args:
        run: takes what is finished; nothing is yet.
        max_rounds: the most rounds there can be.
    """
    run.repeats = "round"
    if run.options.shared_cores is None:  # which calls keep several cores busy is not known first
        run.shared_cores = None
    run.collector.record_conditions(shared_cores=run.shared_cores)
    with run.interrupts.held(), run.system.worker_pool() as pool:
        starter = WorkerStarter.write(pool, run)
        references = Float64Reference.of_models(pool.folder, run.workloads, run.clock)
        restarts = _Restarts(run, starter, references)
        restarts.complete(restarts.run_rounds(max_rounds))


def _monitor_of(run: Run) -> Monitor:
    """A monitor of the CPU; between rounds no worker is left to identify our GPU processes by."""
    return Monitor(
        read_cpu=partial(run.system.read_cpu_times, measured_cores(run)),
        read_gpu=tuple,
        record=run.collector.record_round_conditions,
        note=run.collector.add_note,
    )


@attrs.define
class _Restarts:
    """The rounds of rows that are restarted.

    Attributes:
        run: takes what is finished.
        starter: starts workers.
        references: the outputs of the layers in float64, by model.
        row_states: of all rows, by name.
        measured_s: seconds of warm-up and blocks so far.
        finishing_s: seconds of passes and profiles so far.
        time: the budget, of which building takes nothing here.
    """

    run: Run
    starter: WorkerStarter
    references: Mapping[str, Float64Reference]
    row_states: dict[str, RowState] = attrs.field(factory=dict)
    measured_s: float = 0.0
    finishing_s: float = 0.0
    time: TimeBudget = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.time = self.run.new_budget()

    def run_rounds(self, max_rounds: int) -> str:
        """Measure rounds until the time is used or the user asks to stop; at least one.

        Args:
            max_rounds: the most rounds there can be.

        Returns:
            What ended them.
        """
        try:
            self._run_rounds(max_rounds)
        except FOREIGN_ERRORS as exc:
            if not self.run.finished:
                raise
            self.run.collector.add_note(f"the rounds ended early: {explained(exc)}")
            return "failed"
        return "interrupted" if self.run.stop_requested() else "budget"

    def _run_rounds(self, max_rounds: int) -> None:
        run = self.run
        end_s = run.clock() + TIME_LIMIT * run.budget_s
        monitor = _monitor_of(run)
        monitor.start()
        for number in range(max_rounds):
            spent_s = self.measured_s + self.finishing_s
            is_over = spent_s >= run.budget_s or run.clock() >= end_s
            if number and (is_over or run.stop_requested()):
                break
            for position, row in enumerate(self._order(is_first=not number)):
                self._measure(row, number, position)
            monitor.after_round(number)
            left_s = max(0.0, end_s - run.clock())
            run.report_round(RoundStatus(number + 1, left_s))
        monitor.finish()

    def _order(self, is_first: bool) -> list[Row]:
        """A random order; in the first round references are first, and give others' limits."""
        order = self.run.rng.sample(self.run.rows, len(self.run.rows))
        reference_of = self.run.collector.reference_of
        return sorted(order, key=lambda row: is_first and row.name != reference_of(row.name))

    def _measure(self, row: Row, number: int, position: int) -> None:
        """Start a row, measure one block, and end its worker."""
        if not number:
            self.run.collector.report_row(row, "preparing")
        worker = self.starter.start(row)
        if not number:
            worker.first_call_limit = self.run.first_call_limit(row, self.row_states)
        try:
            with self.run.clock.uncounted_if_it_fails():
                prepared = self._measure_block(row, worker, number, position)
            if row.name not in self.run.finished:
                self._finish(row, prepared)
        except FOREIGN_ERRORS as exc:
            self.run.fail(row, explained(exc))
        finally:
            worker.kill()

    def _measure_block(self, row: Row, worker: Worker, number: int, position: int) -> WorkerBackend:
        """Prepare a row's backend and measure a block."""
        run = self.run
        prepared = run.system.open_backend(worker)
        share_cores(run, [prepared], lambda text: run.collector.add_note(f"{row.name}: {text}"))
        row_state = self.row_states.get(row.name) or RowState(row.name, [])
        begun_s = run.clock()
        run_single_round(row_state, prepared, number, position)
        self.row_states[row.name] = row_state
        self.measured_s += run.clock() - begun_s
        run.collector.record_block(row_state)
        return prepared

    def _finish(self, row: Row, prepared: WorkerBackend) -> None:
        """After a row's first block: passes and profiling, while its worker is there."""
        run, begun_s = self.run, self.run.clock()
        done = FinishedRow.of(self.row_states[row.name], "budget", run.clock)
        run.finished[row.name] = [done]
        try:
            self._probe(row, done)
        except FOREIGN_ERRORS as exc:
            done.warn(exc)
        finish.close([attrs.evolve(done, replicas=[prepared])])
        self.finishing_s += run.clock() - begun_s

    def _probe(self, row: Row, done: FinishedRow) -> None:
        """Measure a row besides its latency, and profile it."""
        run, leave_out = self.run, self._leave_out(row)
        done.run_probes(output_only=False, passes=run.options.pass_names, leave_out=leave_out)
        if run.options.evidence and PROFILE not in leave_out and not run.stop_requested():
            self._profile(row, done)

    def _profile(self, row: Row, done: FinishedRow) -> None:
        run, own = self.run, {row.model: self.references[row.model]}
        finish.profile_rows([(row, done)], own, run.collector, run.stop_requested)

    def _leave_out(self, row: Row) -> Collection[str]:
        """What there is no time for, in the row's share of the half of the budget for that."""
        budget = self.time
        share_s = budget.budget_s * (1 - LEAST_ROUNDS_SHARE) / len(self.run.collector.rows)
        return budget.leave_out_of([self.row_states[row.name]], share_s)

    def complete(self, ended_by: str) -> None:
        """Give the finished rows the blocks of all rounds, and note what was left out.

        Args:
            ended_by: what ended the rounds.
        """
        for name, (done,) in self.run.finished.items():
            row_state = self.row_states[name]
            done.measurement, done.replicas = row_state.measurement(ended_by), row_state.replicas
        if note := self.time.note():
            self.run.collector.add_note(note)
