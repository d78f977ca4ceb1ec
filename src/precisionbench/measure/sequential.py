"""Rows one after another in this process: for debugging, a single backend, or small memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial

import torch

from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import FOREIGN_ERRORS, DeviceError, StateLeakError
from precisionbench.measure import finish
from precisionbench.measure.collector import Collector
from precisionbench.measure.finish import FinishedRow, Float64Reference
from precisionbench.measure.guard import GuardedTelemetry, explained
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


def measure(workload: Workload, collector: Collector, budget_s: float, options: Options) -> None:
    """Measure every row, in the order asked for.

    Args:
        workload: the model and inputs.
        collector: holds the rows, and takes their results.
        budget_s: seconds for each row, from its warm-up to its profile.
        options: how to measure.
    """
    launcher = InlineLauncher.on_device_of(workload)
    device, share = workload.device, 1 / len(collector.rows)
    limit: FirstCallLimit | None = None
    for row in collector.rows:
        budget = partial(
            TimeBudget, budget_s, device.type, options.passes, options.evidence, share=share
        )
        done = _measure_row(row, launcher, collector, budget, options, limit)
        if done and limit is None:
            limit = FirstCallLimit(row.name, done.call_s)


def _measure_row(
    row: Row,
    launcher: InlineLauncher,
    collector: Collector,
    begin_budget: Callable[[], TimeBudget],
    options: Options,
    limit: FirstCallLimit | None,
) -> FinishedRow | None:
    """Measure a row; None where it failed or was left out before its first round.

    A backend that leaves torch patched fails even later: the next row would run with that.
    """
    on_step = limit.check_step() if limit and row.may_be_left_out else lambda _: None
    done: FinishedRow | None = None
    try:
        _raise_if_device_lost(collector)
        collector.report_row(row, "preparing")
        with launcher.open(row.require_backend(), on_step) as session:
            collector.report_row(row, "measuring")
            row_state, budget = RowState(row.name, [session]), begin_budget()
            done = _in_rounds(row_state, launcher, collector, budget, options)
            _probe(done, row_state, collector, budget, options)
    except FOREIGN_ERRORS as exc:
        if done is None or isinstance(exc, StateLeakError):
            collector.add_failure(row, explained(exc))
            return None
        done.warn(exc)
    # after the plugin's cleanup, which may add warnings and log lines
    finish.add_to(collector, row, [done])
    return done


def _in_rounds(
    row_state: RowState,
    launcher: InlineLauncher,
    collector: Collector,
    budget: TimeBudget,
    options: Options,
) -> FinishedRow:
    """The row after its rounds; an exception of any kind ends them, and keeps those before."""
    ended_by = "failed"
    try:
        ended_by = _run_rounds(row_state, launcher.workload.device, collector, budget, options)
    except FOREIGN_ERRORS as exc:
        row_state.error = explained(exc)
    if row_state.error and not row_state.complete_rounds:
        raise row_state.error
    return FinishedRow.of(row_state, ended_by)


def _probe(
    done: FinishedRow,
    row_state: RowState,
    collector: Collector,
    budget: TimeBudget,
    options: Options,
) -> None:
    """The passes and the profile, as far as the budget has time for them."""
    if done.measurement.ended_by == "failed":
        return
    left_out = budget.leave_out([row_state], [row_state])
    done.run_probes(output_only=False, passes=options.passes, leave_out=left_out, capture=False)
    if options.evidence and PROFILE not in left_out:
        with TemporaryFolder() as folder:
            reference = Float64Reference(folder)
            reference.write([done.profiled])  # not where torch is patched in this process
            done.profile(reference)
    if budget.note():
        collector.add_note(f"{row_state.name}: {budget.note()}")


def _run_rounds(
    row_state: RowState,
    device: torch.device,
    collector: Collector,
    budget: TimeBudget,
    options: Options,
) -> str:
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
            on_first_round=monitor.start,
            on_round=lambda status: monitor.after_round(status.round - 1),
            on_block=collector.record_block,
            **options.rounds,
        )
        ended_by = run_rounds([row_state], schedule)
        monitor.finish()
    return ended_by


def _raise_if_device_lost(collector: Collector) -> None:
    for name, error in collector.errors.items():
        if isinstance(error, DeviceError):
            raise DeviceError(f"the device stopped answering in {name}", error.remedy)
