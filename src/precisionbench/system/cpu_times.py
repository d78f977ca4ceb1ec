"""CPU time that cores and this process have spent so far: the difference of two readings is a load.

On Linux, from /proc. Elsewhere our own load cannot be separated from that of other processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import attrs

from precisionbench.results.conditions import CpuUse
from precisionbench.results.grouping import grouped

# Columns of a core in /proc/stat: all but idle, waiting for I/O, and guests, which are in `user`.
# `steal` is what other virtual machines took of it.
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7
_BUSY = (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL)
# Columns of /proc/PID/stat after the process's name: its parent, and the CPU times of the process
# and of its children that have ended.
_PARENT, _TIMES = 1, slice(11, 15)


@attrs.frozen
class CpuTimes:
    """A reading of CPU times.

    Attributes:
        read_s: when it was read, on a monotonic clock.
        cores: number of cores that were read.
        busy_s: CPU time of these cores on behalf of any process, since the system started.
        own_s: CPU time of this process and of those that it has started, since they started.
    """

    read_s: float
    cores: int
    busy_s: float
    own_s: float

    def use_until(self, later: CpuTimes) -> CpuUse:
        """What was used between two readings of the same cores.

        Args:
            later: the second reading.
        """
        return CpuUse(
            wall_s=later.read_s - self.read_s,
            cores=self.cores,
            busy_s=max(0.0, later.busy_s - self.busy_s),
            own_s=max(0.0, later.own_s - self.own_s),
        )


def read_cpu_times(cores: Collection[int], root: Path = Path("/")) -> CpuTimes | None:
    """Read the CPU times of some cores and of this process; None where the system has none.

    Args:
        cores: numbers of the cores.
        root: of the file system.
    """
    try:
        busy_s = _busy_s(root, cores)
        own_s = _tree_s(_processes(root), os.getpid())
    except (OSError, ValueError, IndexError):  # no such files, or not these columns
        return None
    if not busy_s:  # a sandbox may have the file without figures
        return None
    return CpuTimes(time.monotonic(), len(cores), busy_s, own_s)


def load_average_per_core() -> float | None:
    """The load average of the last minute, per core; None where the system has none."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None


def _busy_s(root: Path, cores: Collection[int]) -> float:
    """CPU time of some cores on behalf of any process."""
    names = {f"cpu{core}" for core in cores}
    lines = map(str.split, (root / "proc/stat").read_text().splitlines())
    columns = [values[1:] for values in lines if values and values[0] in names]
    return sum(int(values[place]) for values in columns for place in _BUSY) / _ticks_per_s()


def _processes(root: Path) -> Iterator[tuple[int, int, float]]:
    """Every process: its id, its parent's, and its CPU time in seconds."""
    per_s = _ticks_per_s()
    for folder in os.scandir(root / "proc"):
        if folder.name.isdigit():
            try:
                line = Path(folder.path, "stat").read_bytes()
            except OSError:  # it has ended
                continue
            values = line.rpartition(b")")[2].split()
            yield int(folder.name), int(values[_PARENT]), sum(map(int, values[_TIMES])) / per_s


def _tree_s(processes: Iterator[tuple[int, int, float]], root_id: int) -> float:
    """CPU time of a process and all its descendants."""
    found = list(processes)
    times = {process: seconds for process, _, seconds in found}
    children = grouped(found, lambda entry: entry[1])
    total_s, waiting = 0.0, [root_id]
    while waiting:
        process = waiting.pop()
        total_s += times.get(process, 0.0)
        waiting += [child for child, _, _ in children.get(process, ())]
    return total_s


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")
