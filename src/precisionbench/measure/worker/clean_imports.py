"""Imports a library in the server that forks workers, and says whether workers stay as they were.

A worker must begin like a fresh interpreter: with torch's own functions and settings, one thread,
and no use of a GPU, which a forked process cannot go on with. Threads of libraries that handle
forks do not count: OpenBLAS's, which SciPy starts, end before a fork and start again when they are
needed; jemalloc, whose thread PyArrow starts, goes on without it in the forked process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import signal
import time
import warnings
from pathlib import Path

import attrs

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.torchtools.global_state import Functions, read_flags

_INSTALLED = ("site-packages", "dist-packages")
_FORK_LIMIT_S, _FORK_CHECK_S = 2.0, 0.005
_HANDLES_FORKS = "jemalloc_bg_thd"  # name of jemalloc's thread


def is_installed(library: str) -> bool:
    """Whether a library is installed as published, and not a folder that its user works on.

    Args:
        library: name of the package.
    """
    try:
        found = importlib.util.find_spec(library)
    except FOREIGN_ERRORS:
        return False
    folders = Path(found.origin).parts if found is not None and found.origin else ()
    return any(name in folders for name in _INSTALLED)


def imports_cleanly(module: str) -> bool:
    """Import a module; whether that only defined things.

    Args:
        module: its full name.
    """
    before = _ProcessState.now()
    try:
        importlib.import_module(module)
    except FOREIGN_ERRORS:
        return False
    return before.is_kept()


@attrs.frozen
class _ProcessState:
    """What an import must leave as it is."""

    functions: Functions
    flags: object
    threads: float
    gpu_files: frozenset[str]

    @classmethod
    def now(cls) -> _ProcessState:
        return cls(Functions.now(), read_flags(), _threads(), _open_gpu_files())

    def is_kept(self) -> bool:
        return (
            not self.functions.changes()
            and self.flags == read_flags()
            and _threads() <= self.threads < math.inf
            and _open_gpu_files() <= self.gpu_files
        )


def _threads() -> float:
    """Number of threads that remain after a fork; infinite where it fails, or its process hangs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads
            child = os.fork()
    except OSError:
        return math.inf
    if not child:
        os._exit(0)
    if not _ends_in_time(child):
        return math.inf
    names = [_name(thread) for thread in Path("/proc/self/task").iterdir()]
    return sum(name != _HANDLES_FORKS for name in names)


def _name(thread: Path) -> str:
    with contextlib.suppress(OSError):  # it has just ended
        return (thread / "comm").read_text().strip()
    return ""


def _ends_in_time(child: int) -> bool:
    """Wait for a child process, and kill it where it does not end."""
    end_s = time.monotonic() + _FORK_LIMIT_S
    while time.monotonic() < end_s:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(_FORK_CHECK_S)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _open_gpu_files() -> frozenset[str]:
    """The GPU's device files that this process has open: the driver opens them when it starts."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own, closed again
            found.add(str(descriptor.readlink()))
    return frozenset(file for file in found if file.startswith("/dev/nvidia"))
