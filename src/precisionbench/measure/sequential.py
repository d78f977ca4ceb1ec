"""Rows one after another in this process: for debugging, a single backend, or small memory."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Mapping
from functools import partial

import attrs

from precisionbench._internal.interrupts import Interrupts
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import FOREIGN_ERRORS, DeviceError, StateLeakError
from precisionbench.measure import finish
from precisionbench.measure.collector import Collector
from precisionbench.measure.finish import FinishedRow, Float64Reference
from precisionbench.measure.guard import GuardedTelemetry, explained
from precisionbench.measure.interleaved import interrupted
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.options import Options
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.time_budget import PROFILE, TimeBudget
from precisionbench.measure.worker.first_call_limit import FirstCallLimit
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import Workload
from precisionbench.system import cpu_affinity, nvml
from precisionbench.system.cpu_times import read_cpu_times
from precisionbench.system.telemetry import open_telemetry


def measure(
    workloads: Mapping[str, Workload], collector: Collector, budget_s: float, options: Options
) -> None:
    """Measure every row, in the order asked for.

    Args:
        workloads: the model and inputs by the name of the model, empty where there is only one.
        collector: holds the rows, and takes their results.
        budget_s: seconds for each row, from its warm-up to its profile.
        options: how to measure.

    Raises:
        KeyboardInterrupt: the user stopped it before anything was measured, or a second time.
    """
    launchers = {name: InlineLauncher.on_device_of(one) for name, one in workloads.items()}
    run, share = _InlineRun(launchers, collector, options), 1 / len(collector.rows)
    limits: dict[str, FirstCallLimit] = {}
    for row in list(collector.rows):
        budget = partial(
            TimeBudget, budget_s, run.device.type, options.pass_names, options.evidence, share=share
        )
        done = run.measure(row, budget, limits.get(row.model))
        if done and row.model not in limits:
            limits[row.model] = FirstCallLimit(row.name, done.call_s, device_type=run.device.type)
    run.end()


class _InlineRun:
    """One run in this process.

    Args:
        launchers: prepare backends, by model.
        collector: takes the results.
        options: how to measure.
    """

    def __init__(
        self, launchers: Mapping[str, InlineLauncher], collector: Collector, options: Options
    ) -> None:
        self._launchers, self._collector, self._options = launchers, collector, options
        self.device = next(iter(launchers.values())).workload.device
        self._interrupts = Interrupts(lambda: collector.report_run("interrupted"))

    def measure(
        self, row: Row, begin_budget: Callable[[], TimeBudget], limit: FirstCallLimit | None
    ) -> FinishedRow | None:
        """Measure a row; None where it failed or was left out before its first round.

        Args:
            row: what to measure.
            begin_budget: begins its budget, once it is prepared.
            limit: of its first call; None where there is none.

        Raises:
            KeyboardInterrupt: a first Ctrl-C while no row is measured, or a second one.
        """
        try:
            if not self._interrupts.requested:
                return self._measure(row, begin_budget, limit)
        except KeyboardInterrupt:
            if not self._collector.results or self._interrupts.requested:
                raise
            self._interrupts.request()
        self._collector.add_failure(row, interrupted())
        return None

    def end(self) -> None:
        """Mark all measurements as interrupted, where the user has asked to stop.

        Raises:
            KeyboardInterrupt: no row has a complete round then.
        """
        if not self._interrupts.requested:
            return
        results = self._collector.results
        if not results:
            raise KeyboardInterrupt
        for name, result in results.items():
            measurement = attrs.evolve(result.measurement, ended_by="interrupted")
            results[name] = attrs.evolve(result, measurement=measurement)

    def _measure(
        self, row: Row, begin_budget: Callable[[], TimeBudget], limit: FirstCallLimit | None
    ) -> FinishedRow | None:
        """Prepare a row, measure and undo it.

        A backend that leaves torch patched fails even later: the next row would run with that.
        """
        collector, done = self._collector, None
        on_step = limit.check_step() if limit and row.may_be_left_out else lambda _: None
        with contextlib.ExitStack() as until_undone:
            try:
                _raise_if_device_lost(collector)
                collector.report_row(row, "preparing")
                with self._launchers[row.model].open(row.require_backend(), on_step) as session:
                    until_undone.enter_context(self._interrupts.held())
                    collector.report_row(row, "measuring")
                    row_state, budget = RowState(row.name, [session]), begin_budget()
                    done = self._in_rounds(row_state, budget)
                    self._probe(done, row_state, budget)
            except FOREIGN_ERRORS as exc:
                if done is None or isinstance(exc, StateLeakError):
                    collector.add_failure(row, explained(exc))
                    return None
                done.warn(exc)
            # after the plugin's cleanup, which may add warnings and log lines
            finish.add_to(collector, row, [done])
        return done

    def _in_rounds(self, row_state: RowState, budget: TimeBudget) -> FinishedRow:
        """The row after its rounds; an exception of any kind ends them, and keeps those before."""
        ended_by = "failed"
        try:
            ended_by = self._run_rounds(row_state, budget)
        except FOREIGN_ERRORS as exc:
            row_state.error = explained(exc)
        if not row_state.complete_rounds:
            raise row_state.error or interrupted()
        return FinishedRow.of(row_state, ended_by)

    def _probe(self, done: FinishedRow, row_state: RowState, budget: TimeBudget) -> None:
        """The passes and the profile, as far as the budget has time for them."""
        if done.measurement.ended_by == "failed":
            return
        options, interrupts = self._options, self._interrupts
        left_out = budget.leave_out([row_state], [row_state])
        done.run_probes(
            output_only=interrupts.requested,
            passes=options.pass_names,
            leave_out=left_out,
            capture=False,
        )
        if interrupts.requested:
            return
        if options.evidence and PROFILE not in left_out:
            with TemporaryFolder() as folder:
                reference = Float64Reference(folder)
                reference.write([done.profiled])  # not where torch is patched in this process
                done.profile(reference)
        if budget.note():
            self._collector.add_note(f"{row_state.name}: {budget.note()}")

    def _run_rounds(self, row_state: RowState, budget: TimeBudget) -> str:
        collector, device = self._collector, self.device
        monitor = Monitor(
            read_cpu=partial(read_cpu_times, cpu_affinity.usable_cores()),
            read_gpu=lambda: nvml.other_processes(nvml.processes_on(device), [os.getpid()]),
            record=collector.record_round_conditions,
            note=collector.add_note,
            row=row_state.name,
        )
        with GuardedTelemetry(partial(open_telemetry, device), collector.add_note) as telemetry:
            schedule = Schedule(
                budget.rounds_s([row_state]),
                row_state.name,
                random.Random(0),
                telemetry=telemetry,
                stop_requested=lambda: self._interrupts.requested,
                on_first_round=monitor.start,
                on_round=lambda status: monitor.after_round(status.round - 1),
                on_block=collector.record_block,
                **self._options.rounds,
            )
            ended_by = run_rounds([row_state], schedule)
            monitor.finish()
        return ended_by


def _raise_if_device_lost(collector: Collector) -> None:
    for name, error in collector.errors.items():
        if isinstance(error, DeviceError):
            raise DeviceError(f"the device stopped responding in {name}", error.remedy)
