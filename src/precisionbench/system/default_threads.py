"""How many threads torch computes with by default on this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def default_threads(
    variables: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> int | None:
    """The number of threads that torch computes with on a CPU, unless it is set in Python.

    Args:
        variables: the environment of the process.
        root: of the file system.

    Returns:
        The number in `OMP_NUM_THREADS` or `MKL_NUM_THREADS`. Without one, the physical cores that
        this process may use, or the cores that its control group allows where those are fewer.
        None where the system does not list its cores.
    """
    for name in _VARIABLES:
        if (text := variables.get(name, "")).isdigit():
            return int(text)
    if not hasattr(os, "sched_getaffinity"):
        return None
    physical = {_siblings(core, root) for core in os.sched_getaffinity(0)}
    return min(len(physical), _allowed_cores(root) or len(physical))


def _siblings(core: int, root: Path) -> str:
    """The logical cores of one physical core, as Linux lists them."""
    folder = root / "sys/devices/system/cpu" / f"cpu{core}" / "topology"
    return _text(folder / "thread_siblings_list") or str(core)


def _allowed_cores(root: Path) -> int | None:
    """The cores' worth of time that the control group allows; None without a limit."""
    group = root / "sys/fs/cgroup"
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not quota:  # version 1
        quota, period = (_text(group / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
