"""The CPU cores that all workers run on while they are measured.

Where the host is the bottleneck, processes that wander over many cores differ by 8 % (standard
deviation) and on the same two cores by 3 %; where the device is, it makes no difference
(docs/between-processes.md). Processes that measure at the same time, one for each GPU, would
slow each other down on the same cores, so each of them reserves its own.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import attrs

SHARED_CORES = 2
# With fewer usable cores than this, all are used.
_MIN_USABLE_CORES = 4
# One thread that launches kernels, or waits for them, keeps one busy.
_SINGLE_THREADED_CORES_BUSY = 1.5
_CPUS = Path("/sys/devices/system/cpu")


@attrs.define
class _Reservations:
    """What this process has reserved.

    Attributes:
        pid: of the process; a fork copies this.
        cores: reserved ones.
        answers: what was given for each number of cores.
    """

    pid: int = 0
    cores: set[int] = attrs.field(factory=set)
    answers: dict[int, tuple[int, ...]] = attrs.field(factory=dict)


_reserved = _Reservations()


def usable_cores() -> tuple[int, ...]:
    """The cores that this process may use; empty where that is unknown."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def default_shared_cores(device_type: str) -> int | None:
    """How many cores workers share by default; None: they may use all.

    Args:
        device_type: such as `cuda`.
    """
    enough = len(usable_cores()) >= _MIN_USABLE_CORES
    return SHARED_CORES if device_type == "cuda" and enough else None


def reserved_cores(count: int) -> tuple[int, ...]:
    """Cores that no other process has reserved by this function, the same ones in each call.

    They are the fastest usable cores; among equal ones the last, as systems use the first most.
    Where others have reserved too many, they are the fastest of all. A reservation ends with its
    process and those that it forks. It is a Unix socket, so containers with a network of their own
    do not see it.

    Args:
        count: how many.
    """
    known = _reserved_by_this_process()
    if count not in known.answers:
        known.answers[count] = _chosen(known.cores, count)
    return known.answers[count]


def _chosen(reserved: set[int], count: int) -> tuple[int, ...]:
    ranked = sorted(usable_cores(), key=lambda core: (_speed(core), core), reverse=True)
    own = [core for core in ranked if core in reserved]
    for core in (core for core in ranked if core not in reserved):
        if len(own) < count and _reserve(core):
            reserved.add(core)
            own.append(core)
    return tuple(sorted(own[:count] if len(own) >= count else ranked[:count]))


def _reserved_by_this_process() -> _Reservations:
    global _reserved
    if _reserved.pid != os.getpid():
        _reserved = _Reservations(os.getpid())
    return _reserved


def _reserve(core: int) -> bool:
    """Bind the name of a core, until this process ends; false where another process has it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
            bound.bind(f"\0precisionbench-core-{core}")
            bound.detach()  # it stays open
    except OSError as exc:  # where names cannot be bound, cores cannot be reserved
        return exc.errno != errno.EADDRINUSE
    return True


def is_multithreaded(cores_busy: float) -> bool:
    """Whether a call computes on several cores, so that it must not be restricted to few.

    Args:
        cores_busy: CPU seconds of its process for each second that it takes.
    """
    return cores_busy > _SINGLE_THREADED_CORES_BUSY


def _speed(core: int) -> int:
    """A core's speed relative to others of the same processor; 0 where unknown."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            return int((_CPUS / f"cpu{core}" / name).read_text())
        except (OSError, ValueError):
            continue
    return 0
