"""Functions measured in this process, in interleaved rounds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import torch

from precisionbench._internal.interrupts import Interrupts
from precisionbench._internal.output_capture import OutputCapture
from precisionbench.comparison import Comparison
from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.measure import finish
from precisionbench.measure.calls.rows import CallRow, call_workload, device_in_use
from precisionbench.measure.collector import Collector
from precisionbench.measure.compare import comparison_data, header_of
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.guard import GuardedTelemetry, explained
from precisionbench.measure.interleaved import interrupted
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.options import Options
from precisionbench.measure.planning import Plan
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import MIN_LONG_ROUNDS, RowState, Schedule
from precisionbench.measure.worker.calls import CallBackend, CallSession, first_call, opened
from precisionbench.measure.worker.protocol import FIRST_CALL
from precisionbench.model.workload import Workload
from precisionbench.results.progress import OnProgress
from precisionbench.system import cpu_affinity, nvml
from precisionbench.system.cpu_times import read_cpu_times
from precisionbench.system.telemetry import open_telemetry
from precisionbench.torchtools.timer import Call, Clock, Timer, clock_for


@attrs.define
class CallsHere:
    """Functions that are measured in this process.

    Attributes:
        rows: the functions.
        reference: name of the row that the others are compared with.
        options: how to measure.
        title: what is measured.
        on_progress: as for `compare`.
        make_clock: gives the clock of a device.
        now: the clock of the budget, in seconds.
    """

    rows: Sequence[CallRow]
    reference: str
    options: Options
    title: str
    on_progress: OnProgress | None = None
    make_clock: Callable[[torch.device], Clock] = clock_for
    now: Callable[[], float] = time.monotonic
    _collector: Collector = attrs.field(init=False)
    _interrupts: Interrupts = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._collector = Collector(self.rows, self.reference, None, (), self.on_progress)
        report = partial(self._collector.report_run, "interrupted")
        self._interrupts = Interrupts(report)

    def measure(self, device: Any, *, raise_failures: bool = False) -> Comparison:
        """Call each function once, warm all of them up, and measure them in common rounds.

        Args:
            device: whose clock times them; None is the accelerator that they use, if any.
            raise_failures: raise the error of a function that fails, also after finished rounds.

        Raises:
            PrecisionBenchError: no function could be measured.
            KeyboardInterrupt: the user stopped it before any round was finished.
        """
        firsts = self._first_calls()
        workload = call_workload(self.title, device_in_use(device))
        timer = Timer(self.make_clock(workload.device))
        with timer.clock.active(), self._interrupts.held():
            row_states = self._warm(firsts, timer)
            ended_by = self._run_rounds(row_states, workload) if row_states else "budget"
            self._finish(row_states, ended_by)
        collector = self._collector
        if raise_failures:
            for error in [*collector.errors.values(), *(state.error for state in row_states)]:
                if error is not None:
                    raise error
        collector.raise_if_nothing_measured()
        header = header_of(Plan.of_rows(workload, self.rows, self.reference, self.options))
        header.update(schedule="rounds", shared_cores=None)
        return Comparison(comparison_data(header, self.rows, collector), collector.errors)

    def _first_calls(self) -> list[tuple[CallRow, Call, Any, OutputCapture]]:
        """The functions whose first call did not fail, with that call."""
        found = []
        for row in self.rows:
            self._collector.report_row(row, "preparing", step=FIRST_CALL)
            backend, output = _backend_of(row), OutputCapture()
            try:
                call = backend.load()
                found.append((row, call, first_call(call, backend, output), output))
            except FOREIGN_ERRORS as exc:
                self._collector.add_failure(row, explained(exc))
        return found

    def _warm(
        self, firsts: Sequence[tuple[CallRow, Call, Any, OutputCapture]], timer: Timer
    ) -> list[RowState]:
        row_states = []
        for row, call, first, output in firsts:
            self._collector.report_row(row, "preparing", step="warm-up calls")
            try:
                session = opened(call, _backend_of(row), first, timer, output)
            except FOREIGN_ERRORS as exc:
                self._collector.add_failure(row, explained(exc))
            else:
                row_states.append(RowState(row.name, [session]))
        return row_states

    def _run_rounds(self, row_states: Sequence[RowState], workload: Workload) -> str:
        collector, device, options = self._collector, workload.device, self.options
        monitor = Monitor(
            read_cpu=partial(read_cpu_times, cpu_affinity.usable_cores()),
            read_gpu=lambda: nvml.other_processes(nvml.processes_on(device), [os.getpid()]),
            record=collector.record_round_conditions,
            note=collector.add_note,
        )
        with GuardedTelemetry(partial(open_telemetry, device), collector.add_note) as telemetry:
            schedule = Schedule(
                self._budget_s(row_states, device.type),
                self.reference,
                random.Random(workload.seed),
                noise_floor=options.noise_floor_on(device.type),
                telemetry=telemetry,
                now=self.now,
                stop_requested=lambda: self._interrupts.requested,
                on_warm_up=lambda: collector.report_run("warming_up"),
                on_first_round=monitor.start,
                on_round=lambda status: self._after_round(monitor, status),
                **options.rounds,
            )
            ended_by = run_rounds(row_states, schedule)
            monitor.finish()
        return ended_by

    def _budget_s(self, row_states: Sequence[RowState], device_type: str) -> float:
        """Seconds for warm-up and rounds: without a budget of the user's, long calls get more."""
        usual_s = self.options.total_budget_s(device_type, len(self.rows))
        if self.options.budget_s is not None:
            return usual_s
        calls_s = sum(row_state.call_s for row_state in row_states)
        return max(usual_s, (MIN_LONG_ROUNDS + 1) * calls_s)  # one more to warm up

    def _after_round(self, monitor: Monitor, status: Any) -> None:
        monitor.after_round(status.round - 1)
        self._collector.report_run(
            "measuring", status.round, self.options.max_rounds, status.remaining_s
        )

    def _finish(self, row_states: Sequence[RowState], ended_by: str) -> None:
        states = {row_state.name: row_state for row_state in row_states}
        if self._interrupts.requested and not any(s.complete_rounds for s in row_states):
            raise KeyboardInterrupt
        for row in self.rows:
            row_state = states.get(row.name)
            if row_state is None:
                continue
            if not row_state.complete_rounds:
                self._collector.add_failure(row, row_state.error or interrupted())
                continue
            done = FinishedRow.of(row_state, ended_by)
            session: CallSession = row_state.replicas[0]
            done.output = session.output or None
            finish.add_to(self._collector, row, [done])


def _backend_of(row: CallRow) -> CallBackend:
    backend = row.require_backend()
    assert isinstance(backend, CallBackend)
    return backend
