"""Rows one after another in this process: for debugging, a single backend, or small memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection
from functools import partial

import torch

from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import DeviceError, PrecisionBenchError
from precisionbench.measure.collector import Collector
from precisionbench.measure.finish import Float64Reference
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.options import Options
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.time_budget import PROFILE, TimeBudget
from precisionbench.measure.worker.first_call_limit import FirstCallLimit
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.measure.worker.session import Session
from precisionbench.model.workload import Workload
from precisionbench.probes.run_all import PASSES
from precisionbench.results import Passes
from precisionbench.results.evidence import Evidence
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
        row_state = _measure_row(row, launcher, collector, budget, options, limit)
        if row_state and limit is None:
            limit = FirstCallLimit(row.name, row_state.call_s)


def _measure_row(
    row: Row,
    launcher: InlineLauncher,
    collector: Collector,
    begin_budget: Callable[[], TimeBudget],
    options: Options,
    limit: FirstCallLimit | None,
) -> RowState | None:
    """Measure a row; its state, or None where it failed or was left out."""
    on_step = limit.check_step() if limit and row.may_be_left_out else lambda _: None
    try:
        _raise_if_device_lost(collector)
        collector.report_row(row, "preparing")
        with launcher.open(row.require_backend(), on_step) as session:
            collector.report_row(row, "measuring")
            row_state = RowState(row.name, [session])
            budget = begin_budget()
            ended_by = _run_rounds(row_state, launcher.workload.device, collector, budget, options)
            if row_state.error:
                raise row_state.error
            passes, found = _probed(session, row_state, budget, options)
            if budget.note():
                collector.add_note(f"{row.name}: {budget.note()}")
    except PrecisionBenchError as exc:
        collector.add_failure(row, exc)
        return None
    else:  # after the plugin's cleanup, which may add warnings and log lines
        measurement, closing = row_state.measurement(ended_by), session.closing()
        collector.add_result(
            row, session.opening, measurement, closing, passes, session.output, found
        )
        return row_state


def _probed(
    session: Session, row_state: RowState, budget: TimeBudget, options: Options
) -> tuple[Passes, Evidence | None]:
    """The passes and the profile, as far as the budget has time for them."""
    out, call_s = budget.leave_out([row_state], [row_state]), row_state.call_s
    passes = _passes(session, call_s, out) if options.passes else Passes()
    session.check_steady()
    with_profile = options.evidence and PROFILE not in out
    return passes, _evidence(session, call_s) if with_profile else None


def _passes(session: Session, call_s: float, leave_out: Collection[str]) -> Passes:
    known = [name for name in PASSES if name in leave_out]
    return session.passes(call_s, capture=False, leave_out=known)


def _evidence(session: Session, call_s: float) -> Evidence:
    """Profile the calls; with the layers' errors unless torch is patched in this process."""
    with TemporaryFolder() as folder:
        reference = Float64Reference(folder)
        reference.write([session])
        return reference.evidence(session, call_s)


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
        row=row_state.name,
    )
    with open_telemetry(device) as telemetry:
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
