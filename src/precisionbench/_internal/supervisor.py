"""A process that supervises another: when either ends, so does all that the other has started.

A process group holds only those that want to be in it: a daemon leaves it. On Linux a supervisor
is the process to which all orphans among its descendants are given, so that none can leave. On
other systems nothing is supervised.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_S = 0.005
_CLEAN_UP_LIMIT_S = 1.0
_KILL_LIMIT_S = 4.0
END_LIMIT_S = 6.0  # a supervisor that was asked to end has ended by then
# Processes that remove what others have left in shared memory, and then end by themselves.
_CLEANERS = (b"multiprocessing.resource_tracker", b"torch_shm_manager")


def supervised(own_session: bool = False) -> None:
    """Go on in a child of this process, which from now on supervises that child and never returns.

    The supervisor ends as its child does, once it has killed all that the child has started.
    SIGTERM, which it also gets when its parent ends, makes it kill the child first.

    Args:
        own_session: let the child be the leader of a session, and so of a process group.
    """
    if sys.platform != "linux" or not _set_for_this_process(_PR_SET_CHILD_SUBREAPER, 1):
        return
    supervisor = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _set_for_this_process(_PR_SET_PDEATHSIG, signal.SIGTERM)
    child = os.fork()
    if child:
        _supervise(child)
    die_with_parent()
    if os.getppid() != supervisor:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if own_session:
        os.setsid()


def die_with_parent() -> None:
    """Let Linux kill this process when its parent ends, however busy this process is then."""
    if sys.platform == "linux":
        _set_for_this_process(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _set_for_this_process(option: int, value: int) -> bool:
    """Whether the system took an option of `prctl`."""
    with contextlib.suppress(Exception):
        import ctypes

        return ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0  # type: ignore[no-any-return]
    return False


def _supervise(child: int) -> None:
    """Wait for the child or a SIGTERM, end all that is left, and end as the child did."""
    status = 1 << 8
    try:
        _leave_streams()
        status = _status_at_end(child)
        _end_descendants()
    finally:
        _end_as(status)


def _leave_streams() -> None:
    """The child's streams are its own: whoever reads them sees their end when the child ends."""
    with Path(os.devnull).open("r+b") as nothing:
        for stream in (0, 1):
            os.dup2(nothing.fileno(), stream)


def _status_at_end(child: int) -> int:
    while True:
        if signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) == signal.SIGTERM:
            os.kill(child, signal.SIGKILL)
        for pid, status in _reaped():
            if pid == child:
                return status


def _reaped() -> Iterator[tuple[int, int]]:
    """Process IDs and statuses of children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _end_descendants() -> None:
    """Kill all descendants; those that clean up after others get a moment to do so."""
    begun_s = time.monotonic()
    while left := descendants(os.getpid()):
        spent_s = time.monotonic() - begun_s
        for pid in left:
            if spent_s > _CLEAN_UP_LIMIT_S or not _cleans_up(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        list(_reaped())
        if spent_s > _KILL_LIMIT_S:  # the system cannot end one that waits for a device
            return
        time.sleep(_POLL_S)


def _cleans_up(pid: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return any(name in command for name in _CLEANERS)
    return False


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, and those that they have (Linux).

    Args:
        pid: the process ID.
    """
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for parent in new for child in _children(parent)} - found
        found |= new
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _end_as(status: int) -> None:
    """End with the exit code, or by the signal, of a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has written its core
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.kill(os.getpid(), -code)
    os._exit(max(code, 1 if code < 0 else 0))
