"""Starts worker processes as fresh interpreters, which import torch themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Protocol

from precisionbench._internal.supervisor import END_LIMIT_S

_POLL_S = 0.01
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from precisionbench.measure.worker.server import main; main()"
)


class WorkerProcess(Protocol):
    """The operating system's process of a worker, however it was started."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    @property
    def pid(self) -> int:
        """Its process ID."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None until that is known."""
        ...

    def wait_until_exited(self, limit_s: float) -> bool:
        """Wait for its exit; its process ID stays its own until it is killed.

        Args:
            limit_s: seconds to wait at most.

        Returns:
            Whether it has exited.
        """
        ...

    def begin_kill(self) -> None:
        """Let it be killed; `kill` waits until it is."""
        ...

    def kill(self) -> None:
        """Kill it and the processes that it has started, also where it has exited by itself."""
        ...


class SpawnedProcess:
    """A worker process that is a fresh interpreter.

    Args:
        log: file that takes what it prints.
    """

    def __init__(self, log: Path) -> None:
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(import_path())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment(),
                start_new_session=True,  # the parent handles a Ctrl-C in the terminal
            )
        assert self._process.stdin
        assert self._process.stdout
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None until it is killed."""
        return self._process.returncode

    def wait_until_exited(self, limit_s: float) -> bool:
        """Wait for its exit without reaping it: its process group keeps its number until then.

        Args:
            limit_s: seconds to wait at most.

        Returns:
            Whether it has exited.
        """
        if not hasattr(os, "waitid"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_s)
            return self._process.returncode is not None
        end_s = time.monotonic() + limit_s
        while self._process.returncode is None and time.monotonic() < end_s:
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return True
            time.sleep(_POLL_S)
        return self._process.returncode is not None

    def begin_kill(self) -> None:
        """Let it be killed; `kill` waits until it is."""
        if self._process.returncode is None:
            ask_to_end(self.pid)

    def kill(self) -> None:
        """Kill it and the processes that it has started, also where it has exited by itself."""
        if self._process.returncode is None:
            self.begin_kill()
            self.wait_until_exited(END_LIMIT_S)
            kill_group(self.pid)  # its number is not used again before the process is reaped
        self._process.wait()


def ask_to_end(pid: int) -> None:
    """Let the supervisor of a worker kill it and all that it has started; elsewhere kill its group.

    Args:
        pid: process ID of the supervisor, or of the worker where there is none.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    else:
        kill_group(pid)


def kill_group(pid: int) -> None:
    """Kill the processes of a group, or on Windows the one process.

    Args:
        pid: process ID of the group's leader.
    """
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)
        else:
            os.killpg(pid, signal.SIGKILL)


def import_path() -> list[str]:
    """Where this process imports from; Python itself ignores entries that are not text."""
    entries: list[Any] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def environment() -> dict[str, str]:
    """The environment of workers: what they print is written at once."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
