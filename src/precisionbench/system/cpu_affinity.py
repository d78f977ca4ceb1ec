"""The CPU cores that all workers run on while they are measured.

Where the host is the bottleneck, processes that wander over many cores differ by 8 % (standard
deviation) and on the same two cores by 3 %; where the device is, it makes no difference
(docs/between-processes.md).
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED_CORES = 2
# With fewer usable cores than this, all are used.
_MIN_USABLE_CORES = 4
# One thread that launches kernels, or waits for them, keeps one busy.
_SINGLE_THREADED_CORES_BUSY = 1.5
_CPUS = Path("/sys/devices/system/cpu")


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


def fastest_cores(count: int) -> tuple[int, ...]:
    """The fastest usable cores; among equal ones the last, as systems use the first most.

    Args:
        count: how many.
    """
    return tuple(sorted(sorted(usable_cores(), key=lambda core: (_speed(core), core))[-count:]))


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
