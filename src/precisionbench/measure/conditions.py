"""Conditions under which workers are measured: shared CPU cores, and other load on the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from precisionbench.measure.guard import warned
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.run import Run
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.system import cpu_affinity, nvml


def leave_all_cores_to_busy_calls(run: Run, row_states: Iterable[RowState]) -> None:
    """Share no cores where calls compute on several, unless the user asked for it.

    Args:
        run: whose `shared_cores` may become None.
        row_states: of all rows, whose replicas are prepared.
    """
    if run.options.shared_cores is not None or run.shared_cores is None:
        return
    busy = [
        (prepared.opening.cores_busy, row_state.name)
        for row_state in row_states
        for prepared in row_state.replicas
    ]
    most, name = max(busy, default=(0.0, ""))
    if cpu_affinity.is_multithreaded(most):
        run.collector.add_note(
            f"calls of {name} use {most:.1f} CPU cores, so workers were not pinned to shared "
            f"cores; to pin them anyway, choose {run.shared_cores} shared cores"
        )
        run.shared_cores = None


def share_cores(run: Run, replicas: Iterable[WorkerBackend], warn: Callable[[str], object]) -> None:
    """Pin calls to the cores that workers share; compilers and tuners before that use all cores.

    Args:
        run: says how many cores they share.
        replicas: prepared backends of a row.
        warn: takes a warning where that is not possible.
    """
    if run.shared_cores is None:
        return
    for prepared in replicas:
        with warned(warn, "it could not be pinned to the shared cores"):
            prepared.worker.pin_calls(measured_cores(run))


def measured_cores(run: Run) -> tuple[int, ...]:
    """The cores that workers may use while they are measured.

    Args:
        run: says how many cores they share.
    """
    if run.shared_cores is None:
        return cpu_affinity.usable_cores()
    return cpu_affinity.reserved_cores(run.shared_cores)


def monitor_of(run: Run, row_states: Sequence[RowState]) -> Monitor:
    """A monitor of the rounds in which prepared rows are measured.

    Args:
        run: takes what it finds.
        row_states: of all rows.
    """
    return Monitor(
        read_cpu=partial(run.system.read_cpu_times, measured_cores(run)),
        read_gpu=lambda: _other_processes(run, row_states),
        record=run.collector.record_round_conditions,
        note=run.collector.add_note,
        session=row_states[0].session,
    )


def _other_processes(run: Run, row_states: Sequence[RowState]) -> list[str]:
    """Other processes that compute on the GPU: they affect every time."""
    if any(row_state.error for row_state in row_states):
        return []  # the driver may still list workers that have died
    ours = [prepared.worker.pid for row_state in row_states for prepared in row_state.replicas]
    if run.device.type == "cuda" and torch.cuda.is_initialized():
        ours.append(os.getpid())
    return nvml.other_processes(run.system.compute_processes(run.device), ours)
