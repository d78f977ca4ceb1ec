"""Conditions under which workers are measured: shared CPU cores, other processes on the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

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
            f"calls of {name} keep {most:.1f} CPU cores busy, so all workers were left all "
            f"cores; give shared_cores={run.shared_cores} to hold them to few all the same"
        )
        run.shared_cores = None


def share_cores(run: Run, replicas: Iterable[WorkerBackend]) -> None:
    """Pin workers to the cores that they share; compilers and tuners before that use all cores.

    Args:
        run: says how many cores they share.
        replicas: prepared backends.
    """
    if run.shared_cores is not None:
        cores = cpu_affinity.fastest_cores(run.shared_cores)
        for prepared in replicas:
            prepared.worker.set_cpu_affinity(cores)


def note_other_processes(run: Run, row_states: Iterable[RowState]) -> None:
    """Add a note where other processes compute on the GPU: they affect every time.

    Args:
        run: takes the note.
        row_states: of all rows.
    """
    row_states = list(row_states)
    if any(row_state.error for row_state in row_states):
        return  # the driver may still list workers that have died
    ours = [prepared.worker.pid for row_state in row_states for prepared in row_state.replicas]
    if run.device.type == "cuda" and torch.cuda.is_initialized():
        ours.append(os.getpid())
    listed = run.system.compute_processes(run.device)
    note = nvml.note_of_other_processes(nvml.other_processes(listed, ours))
    if note:
        run.collector.add_note(note)
