"""Checks of the host's load, other processes on the GPU, and the backends."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import Readings
from precisionbench.errors import some

_BUSY_LOAD = 0.5


def check_host(readings: Readings) -> Iterator[MachineCheck]:
    """Check the host's load and the CPU's frequency governor.

    Args:
        readings: what was measured.
    """
    if readings.load is not None:
        busy = readings.load > _BUSY_LOAD
        yield MachineCheck(
            "host load",
            State.ATTENTION if busy else State.GOOD,
            f"{readings.load:.2f} processes for each core in the last minute",
            "end other programs: what the host does shows in every small batch" if busy else "",
        )
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
