"""Rows one after another in this process: for debugging, a single backend, or small memory."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import torch

from precisionbench.errors import DeviceError, PrecisionBenchError
from precisionbench.measure.collector import Collected
from precisionbench.measure.examination import Float64Reference
from precisionbench.measure.rounds import RowState, Schedule, run_rounds
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.measure.worker.session import Session
from precisionbench.model.workload import Workload
from precisionbench.results.evidence import Evidence
from precisionbench.system.telemetry import watching


def measure(
    workload: Workload, collected: Collected, budget_s: float, evidence: bool = True
) -> None:
    """Measure every row, in the order asked for.

    Args:
        workload: the model and inputs.
        collected: holds the rows, and takes what comes of each.
        budget_s: seconds for each row.
        evidence: see what runs in each row's calls, once they are measured.
    """
    launcher = InlineLauncher.on_device_of(workload)
    for row in collected.rows:
        _measure(row, launcher, collected, budget_s, evidence)


def _measure(
    row: Row, launcher: InlineLauncher, collected: Collected, budget_s: float, evidence: bool
) -> None:
    try:
        _refuse_on_lost_device(collected)
        collected.tell(row, "preparing")
        with launcher.open(row.importable()) as session:
            collected.tell(row, "measuring")
            row_state = RowState(row.name, [session])
            ended_by = _rounds(row_state, launcher.workload.device, collected, budget_s)
            if row_state.error:
                raise row_state.error
            passes = session.passes(row_state.call_s, capture=False)
            session.check_steady()
            seen = _evidence(session, row_state.call_s) if evidence else None
    except PrecisionBenchError as exc:
        collected.fail(row, exc)
    else:  # after the plugin's cleanup, which may have said something
        collected.keep(
            row,
            session.opening,
            row_state.measurement(ended_by),
            session.closing(),
            passes,
            session.output,
            seen,
        )


def _evidence(session: Session, call_s: float) -> Evidence:
    """With the layers' errors where torch is as it was made."""
    with tempfile.TemporaryDirectory(prefix="precisionbench-") as folder:
        truth = Float64Reference(Path(folder))
        truth.ask([session])
        return truth.evidence(session, call_s)


def _rounds(
    row_state: RowState, device: torch.device, collected: Collected, budget_s: float
) -> str:
    with watching(device) as watch:
        order = random.Random(0)
        rules = Schedule(
            budget_s, row_state.name, order, watch=watch, on_block=collected.write_down
        )
        return run_rounds([row_state], rules)


def _refuse_on_lost_device(collected: Collected) -> None:
    for name, error in collected.errors.items():
        if isinstance(error, DeviceError):
            raise DeviceError(f"the device stopped answering in {name}", error.remedy)
