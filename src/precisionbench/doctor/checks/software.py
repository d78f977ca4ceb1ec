"""Checks of the host's load, other processes on the GPU, and the backends."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.analysis.disturbances import is_busy
from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import Readings
from precisionbench.errors import some
from precisionbench.report.disturbances import cores_text

_BUSY_LOAD = 0.5  # where the load average is all that the system tells


def check_host(readings: Readings) -> Iterator[MachineCheck]:
    """Check the host's load and the CPU's frequency governor.

    Args:
        readings: what was measured.
    """
    if readings.cpu is not None:
        yield _load(is_busy(readings.cpu), f"others kept {cores_text(readings.cpu)} busy")
    elif readings.load is not None:
        text = f"{readings.load:.2f} processes for each core in the last minute"
        yield _load(readings.load > _BUSY_LOAD, text)
    if readings.governor is None:
        yield MachineCheck("CPU governor", State.UNKNOWN, "the system does not tell")
    else:
        steady = readings.governor == "performance"
        yield MachineCheck(
            "CPU governor",
            State.GOOD if steady else State.ATTENTION,
            readings.governor,
            "" if steady else "cpupower frequency-set -g performance keeps the host's clock steady",
        )


def _load(busy: bool, finding: str) -> MachineCheck:
    state = State.ATTENTION if busy else State.GOOD
    remedy = "end other programs: what the host does shows in every small batch" if busy else ""
    return MachineCheck("host load", state, finding, remedy)


def check_other_processes(readings: Readings) -> Iterator[MachineCheck]:
    """Check whether other processes compute on the GPU.

    Args:
        readings: what was measured.
    """
    subject, others = "other processes", readings.strangers
    if readings.environment.gpu is None:
        return
    if others is None:
        yield MachineCheck(subject, State.UNKNOWN, "the driver does not list them")
    elif others:
        text = f"{some(list(others))} on this GPU"
        remedy = "end them, or measure when they are idle: what they do is in every figure"
        yield MachineCheck(subject, State.ATTENTION, text, remedy)
    else:
        yield MachineCheck(subject, State.GOOD, "nobody else is seen to compute on this GPU")


def check_backends(readings: Readings) -> Iterator[MachineCheck]:
    """Check whether each backend can run here.

    Args:
        readings: what was measured.
    """
    for backend in readings.backends:
        subject = f"backend {backend.name}"
        if backend.available:
            yield MachineCheck(subject, State.GOOD, "ready")
        else:
            text = f"needs {backend.requirement}" if backend.requirement else "not ready"
            yield MachineCheck(subject, State.ATTENTION, text, backend.remedy)
