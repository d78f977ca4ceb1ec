"""Tracks the processes that a script starts: what they do is not observed, but can be counted.

A process that a library starts for itself, such as torch's compile workers, is not counted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import attrs

from precisionbench._internal.supervisor import descendants
from precisionbench.scriptcheck.events import ChildProcesses
from precisionbench.scriptcheck.frames import Line, UserFrames, place_of
from precisionbench.scriptcheck.import_hook import after_import
from precisionbench.system.cpu_affinity import usable_cores

_THREADS_VARIABLE = "OMP_NUM_THREADS"
_LOADER = str(Path("torch", "utils", "data"))
_LOADER_THREADS = 1  # torch sets it in each worker
_DEAD_STATES = "ZX"  # of /proc/PID/stat


@attrs.define
class _Started:
    """Processes that were started in one way."""

    line: Line
    threads_each: int | None
    fixed_threads: bool
    count: int = 0
    at_once: int = 0
    running: list[int] = attrs.Factory(list)


class ChildProcessTracker:
    """Counts the processes that a script starts.

    Args:
        frames: which frames are the user's.
    """

    def __init__(self, frames: UserFrames) -> None:
        self._frames = frames
        self._started: dict[str, _Started] = {}

    def install(self) -> None:
        """Wrap what starts processes."""
        start, fork = subprocess.Popen.__init__, os.fork

        @functools.wraps(start)
        def popen(process: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
            start(process, args, *rest, **kwargs)
            if self._frames.call_stdlib(frame := sys._getframe(1)):
                environment = kwargs.get("env") or os.environ
                threads = _default_threads(environment) if _is_python(args) else None
                self._add("subprocess", process.pid, frame, threads)

        @functools.wraps(fork)
        def forked() -> int:
            pid = fork()
            if pid and self._frames.contains(frame := sys._getframe(1)):
                self._add("os.fork", pid, frame, _threads_here(), fixed_threads=True)
            return pid

        subprocess.Popen.__init__ = popen  # type: ignore[method-assign, assignment]
        os.fork = forked
        after_import({"multiprocessing.process": self._hook_multiprocessing})

    def frozen(self) -> tuple[ChildProcesses, ...]:
        """All processes that were started, by the way they were."""
        return tuple(
            ChildProcesses(
                kind, place_of(s.line), s.count, s.at_once, s.threads_each, s.fixed_threads
            )
            for kind, s in self._started.copy().items()
        )

    def _hook_multiprocessing(self, module: ModuleType) -> None:
        start: Callable[[Any], None] = module.BaseProcess.start

        @functools.wraps(start)
        def hooked(process: Any) -> None:
            start(process)
            frame = sys._getframe(1)
            if _is_called_from(_LOADER, frame):
                self._add("DataLoader", process.pid, frame, _LOADER_THREADS, fixed_threads=True)
            else:
                is_fork = process._popen.method == "fork"
                threads = _threads_here() if is_fork else _default_threads(os.environ)
                self._add("multiprocessing", process.pid, frame, threads, is_fork)

        module.BaseProcess.start = hooked

    def _add(
        self,
        kind: str,
        pid: int,
        frame: FrameType,
        threads_each: int | None,
        fixed_threads: bool = False,
    ) -> None:
        line = self._frames.line(frame)
        started = self._started.setdefault(kind, _Started(line, threads_each, fixed_threads))
        started.running = [*filter(_is_running, started.running), pid]
        started.count += 1
        started.at_once = max(started.at_once, len(started.running))


def children_cpu_s() -> float:
    """CPU time of the processes that this one has started, and of those that they have."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(map(_cpu_s, descendants(os.getpid())))


def _cpu_s(pid: int) -> float:
    """CPU time of a process that runs (Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        user, system = _stat(pid)[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _stat(pid: int) -> list[str]:
    """The fields of a process from its state on, as in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _stat(pid)[0] not in _DEAD_STATES
    return False


def _default_threads(environment: Any) -> int | None:
    """The threads that torch uses by default in a new process."""
    with contextlib.suppress(KeyError, ValueError):
        return int(environment[_THREADS_VARIABLE])
    return len(usable_cores()) or None


def _threads_here() -> int | None:
    """The threads that torch uses in this process, and in those that are forked from it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else _default_threads(os.environ)


def _is_python(args: Any) -> bool:
    command = args if isinstance(args, (str, bytes, os.PathLike)) else next(iter(args), "")
    return "python" in Path(os.fsdecode(command).partition(" ")[0]).name


def _is_called_from(folder: str, frame: FrameType | None) -> bool:
    """Whether a file in this folder is among the callers."""
    while frame is not None:
        if folder in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
