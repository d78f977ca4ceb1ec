"""On which CPU cores all workers run while they are measured.

Where the host is the bottleneck, processes that wander over many cores differ by 8 % (standard
deviation) and on the same two cores by 3 %; where the device is, it makes no difference
(docs/between-processes.md).
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED_CORES = 2
# With fewer there is nothing to choose.
_LEAST_CORES = 4
# One thread that launches kernels, or waits for them, keeps one busy.
_BUSY_CORES_OF_ONE_THREAD = 1.5
_CPUS = Path("/sys/devices/system/cpu")


def available() -> tuple[int, ...]:
    """The cores that this process may use; none where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def default_count(device_type: str) -> int | None:
    """How many cores workers of a device share unless told otherwise; None: they keep all.

    Args:
        device_type: such as `cuda`.
    """
    return SHARED_CORES if device_type == "cuda" and len(available()) >= _LEAST_CORES else None


def chosen(count: int) -> tuple[int, ...]:
    """The fastest cores that this process may use, the last of equals: systems use the first most.

    Args:
        count: how many.
    """
    return tuple(sorted(sorted(available(), key=lambda core: (_speed(core), core))[-count:]))


def uses_several(cores_busy: float) -> bool:
    """Whether a call computes on several cores, so that it must not be held to few.

    Args:
        cores_busy: CPU seconds of its process for each second that it takes.
    """
    return cores_busy > _BUSY_CORES_OF_ONE_THREAD


def _speed(core: int) -> int:
    """What tells fast cores from slow ones of the same processor; 0 where nothing does."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            return int((_CPUS / f"cpu{core}" / name).read_text())
        except (OSError, ValueError):
            continue
    return 0
