"""Checks of the host's load, other processes on the GPU, and the backends."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.analysis.disturbances import is_busy
from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import Readings
from precisionbench.errors import some
from precisionbench.report.disturbances import cores_text

_BUSY_LOAD = 0.5  # where the system reports the load average only


def check_host(readings: Readings) -> Iterator[MachineCheck]:
    """Check the host's load and the CPU's frequency governor.

    Args:
        readings: what was measured.
    """
    if readings.cpu is not None:
        yield _load(is_busy(readings.cpu), f"other processes kept {cores_text(readings.cpu)} busy")
    elif readings.load is not None:
        text = f"load average {readings.load:.2f} per core (last minute)"
        yield _load(readings.load > _BUSY_LOAD, text)
    if readings.governor is None:
        yield MachineCheck("CPU governor", State.UNKNOWN, "unavailable")
    else:
        steady = readings.governor == "performance"
        yield MachineCheck(
            "CPU governor",
            State.GOOD if steady else State.ATTENTION,
            readings.governor,
            "" if steady else "keep the CPU clock constant: cpupower frequency-set -g performance",
        )


def _load(busy: bool, finding: str) -> MachineCheck:
    state = State.ATTENTION if busy else State.GOOD
    remedy = "stop other programs: they add to every time of a small batch" if busy else ""
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
        yield MachineCheck(subject, State.UNKNOWN, "unavailable")
    elif others:
        text = f"{some(list(others))} on this GPU"
        remedy = "stop them, or measure while they are idle: they affect every time"
        yield MachineCheck(subject, State.ATTENTION, text, remedy)
    else:
        yield MachineCheck(subject, State.GOOD, "none on this GPU")


def check_backends(readings: Readings) -> Iterator[MachineCheck]:
    """Check whether each backend can run here.

    Args:
        readings: what was measured.
    """
    for backend in readings.backends:
        subject = f"backend {backend.name}"
        if backend.available:
            yield MachineCheck(subject, State.GOOD, "available")
        else:
            missing = backend.requirement.removeprefix("needs ")
            text = f"not available: requires {missing}" if missing else "not available"
            yield MachineCheck(subject, State.ATTENTION, text, backend.remedy)
