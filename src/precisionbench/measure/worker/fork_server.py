"""A process that has imported torch and forks workers from it, so that they start in milliseconds.

It runs no user code, changes nothing in torch and never uses a GPU, so that each worker begins like
a fresh interpreter that has imported torch, and the well-known libraries that the model needs. The
parent sends a request for each worker over a Unix socket, with the descriptors of the worker's
standard streams; the server answers with its process ID, and reports when it has ended.

`measure.worker.process` is the parent's side.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from precisionbench.measure.worker import server

_MAX_REQUEST_BYTES = 1 << 22
_STREAMS = 3
_WITHOUT = "PRECISIONBENCH_FORK_SERVER_WITHOUT"  # libraries that this server does not import


def main() -> None:
    """Fork workers until the parent closes the socket; its descriptor is the last argument."""
    connection = socket.socket(fileno=int(sys.argv[-1]))
    server.import_torch()
    gc.freeze()  # a collection in a worker would otherwise copy the memory of all that is imported
    children: dict[int, bool] = {}  # by process ID: whether the end has been reported
    woken = _pipe_written_when_children_end()
    while True:
        readable, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
        _report_ended(connection, children)
        if connection.fileno() in readable:
            message, descriptors, *_ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, _STREAMS)
            if not message:
                os._exit(0)
            _serve(connection, json.loads(message), descriptors, children)


def _pipe_written_when_children_end() -> int:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _report_ended(connection: socket.socket, children: dict[int, bool]) -> None:
    """Report children that have ended; they keep their process ID until the parent releases it."""
    for pid, reported in children.items():
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if not reported and (ended := os.waitid(os.P_PID, pid, options)):
            children[pid] = True
            killed = ended.si_code != os.CLD_EXITED
            _send(
                connection, {"ended": pid, "code": -ended.si_status if killed else ended.si_status}
            )


def _serve(
    connection: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    children: dict[int, bool],
) -> None:
    if "release" in request:
        if children.pop(request["release"], False):
            os.waitpid(request["release"], 0)
        return
    if "import" in request:
        if not children:  # else each worker imports them itself
            _import_libraries(connection, request["import"])
        return
    pid = os.fork()
    if not pid:
        connection.close()
        _run_worker(descriptors, request)
    children[pid] = False
    for descriptor in descriptors:
        os.close(descriptor)
    _send(connection, {"forked": pid})


def _import_libraries(connection: socket.socket, modules: Sequence[str]) -> None:
    """Import modules of installed libraries; start anew without one that does more than define."""
    from precisionbench.measure.worker.clean_imports import imports_cleanly, is_installed
    from precisionbench.model.libraries import library_of

    without = os.environ.get(_WITHOUT, "").split()
    for module in modules:
        library = library_of(module)
        if library is None or library in without or not is_installed(library):
            continue
        if not imports_cleanly(module):
            _start_anew(connection, [*without, library])
    gc.freeze()


def _start_anew(connection: socket.socket, without: Sequence[str]) -> None:
    """Become a fresh server of the same parent; requests that it has sent meanwhile wait."""
    os.environ[_WITHOUT] = " ".join(without)
    os.set_inheritable(connection.fileno(), True)
    os.execv(sys.executable, sys.orig_argv)


def _run_worker(descriptors: list[int], request: dict[str, Any]) -> None:
    """Become a worker, and never return to the server's loop; an error is in the worker's log."""
    try:
        _set_up_worker(descriptors, request)
        server.main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _set_up_worker(descriptors: list[int], request: dict[str, Any]) -> None:
    """Take over the streams and the parent's environment, in a process group of its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["import_path"]
    os.chdir(request["folder"])
    os.sched_setaffinity(0, request["cores"])


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.send(json.dumps(message).encode())
