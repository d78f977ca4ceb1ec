"""Starts worker processes by forking a server that has imported torch already (Linux).

`measure.worker.fork_server` is the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from precisionbench._internal.supervisor import END_LIMIT_S
from precisionbench.measure.worker.spawn import (
    ask_to_end,
    environment,
    import_path,
    kill_group,
)

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from precisionbench.measure.worker.fork_server import main; main()"
)
_MAX_MESSAGE_BYTES = 1 << 16
_SET_BY_PYTEST = "PYTEST_CURRENT_TEST"  # another in each test, and nothing depends on it


def can_fork() -> bool:
    """Whether this system has what the server needs: Linux's fork, and packets with descriptors."""
    return sys.platform == "linux" and hasattr(socket, "send_fds")


class ForkServer:
    """The server, seen from its parent; use it as a context manager.

    Raises:
        OSError: the system does not allow it; workers can be fresh interpreters instead.
    """

    def __init__(self) -> None:
        self._import_path = import_path()
        self._began_in = _circumstances()
        # Packets keep requests apart, and each one's descriptors with it.
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(self._import_path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # without it, workers import torch, and say what fails
                env=environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent
            )
        self._lock = threading.Lock()
        self._requested: deque[ForkedProcess] = deque()
        self._forked: dict[int, ForkedProcess] = {}
        self._has_ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it can fork: it has not ended."""
        return not self._has_ended

    def is_up_to_date(self) -> bool:
        """Whether the environment, import path and working directory are those it began in."""
        return _circumstances() == self._began_in

    def import_libraries(self, modules: Sequence[str]) -> None:
        """Let it import modules of well-known libraries, which workers then need not import.

        It does not while a worker runs, nor where that would change torch or start threads.

        Args:
            modules: their full names; it leaves out those of any other package.
        """
        if modules:
            with contextlib.suppress(OSError), self._lock:  # workers import them, then
                self._send({"import": list(modules)})

    def fork(self, log: Path) -> ForkedProcess:
        """Request a worker process; it begins once the server has imported torch.

        Args:
            log: file that takes what it prints.

        Raises:
            OSError: the request could not be sent.
        """
        request = {
            "environment": environment(),
            "import_path": self._import_path,
            "folder": str(Path.cwd()),
            "cores": sorted(os.sched_getaffinity(0)),
        }
        requests, stdin = os.pipe()
        stdout, answers = os.pipe()
        process = ForkedProcess(
            self,
            os.fdopen(stdin, "wb"),
            os.fdopen(stdout, "rb"),
        )
        try:
            with log.open("wb") as sink, self._lock:
                self._send(request, [requests, answers, sink.fileno()])
                self._requested.append(process)
        except OSError:
            process.stdin.close()
            process.stdout.close()
            raise
        finally:
            os.close(requests)
            os.close(answers)
        return process

    def release(self, pid: int) -> None:
        """Let the process ID of a worker that has ended be used again.

        Args:
            pid: the process ID.
        """
        with self._lock:
            if self._forked.pop(pid, None) is not None:
                with contextlib.suppress(OSError):  # the server has ended, and its workers with it
                    self._send({"release": pid})

    def close(self) -> None:
        """End the server; workers that it has not forked yet never begin."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        self._listener.join()
        self._connection.close()

    def close_unless_forked(self) -> None:
        """End the server where a worker waits for its start, so that nobody else does."""
        if self._requested:
            self.close()

    def disown(self) -> None:
        """In a process that was forked from its parent: leave it to the parent."""
        self._connection.close()
        self._process.returncode = 0  # never to be waited for here, nor killed

    def _send(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._connection, [json.dumps(request).encode()], [*descriptors])

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while message := self._connection.recv(_MAX_MESSAGE_BYTES):
                self._receive(json.loads(message))
        with self._lock:
            self._has_ended = True
            for process in (*self._requested, *self._forked.values()):
                process.set_exited(1)

    def _receive(self, message: dict[str, Any]) -> None:
        with self._lock:
            if "forked" in message:
                process = self._forked[message["forked"]] = self._requested.popleft()
                process.set_started(message["forked"])
            elif message["ended"] in self._forked:
                self._forked[message["ended"]].set_exited(message["code"])


class ForkedProcess:
    """A worker process that the server forks.

    Args:
        server: forks it.
        stdin: takes its requests.
        stdout: gives its answers.

    Attributes:
        returncode: its exit code, or minus the signal that ended it; None while it runs.
    """

    def __init__(self, server: ForkServer, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._server = server
        self._pid: int | None = None
        self._is_released = False
        self._started, self._exited = threading.Event(), threading.Event()

    @property
    def pid(self) -> int:
        """Its process ID, once it has begun; 0 where it never did."""
        self._started.wait()
        return self._pid or 0

    def set_started(self, pid: int) -> None:
        """Keep its process ID."""
        self._pid = pid
        self._started.set()

    def set_exited(self, code: int) -> None:
        """Keep its exit code."""
        self.returncode = code
        self._exited.set()
        self._started.set()

    def wait_until_exited(self, limit_s: float) -> bool:
        """Wait for its exit; its process ID stays its own.

        Args:
            limit_s: seconds to wait at most.

        Returns:
            Whether it has exited.
        """
        return self._exited.wait(limit_s)

    def begin_kill(self) -> None:
        """Let it be killed; `kill` waits until it is."""
        if self._pid is not None and not self._is_released:
            ask_to_end(self._pid)  # where it never began, its channel is closed, which ends it

    def kill(self) -> None:
        """Kill it and the processes that it has started, also where it has exited by itself."""
        if self._pid is None or self._is_released:
            return
        self.begin_kill()
        self._exited.wait(END_LIMIT_S)
        kill_group(self._pid)  # its number is not used again before it is released
        self._exited.wait(END_LIMIT_S)
        self._server.release(self._pid)
        self._is_released = True


def _circumstances() -> tuple[object, ...]:
    """What a server takes over when it begins, and what a fresh interpreter would."""
    variables = {**environment()}
    variables.pop(_SET_BY_PYTEST, None)
    try:
        folder = os.getcwd()
    except OSError:  # it has been deleted
        folder = ""
    return variables, import_path(), folder
