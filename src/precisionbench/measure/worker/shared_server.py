"""The fork server of this process: started once, and kept for its next comparisons.

This module does not import torch, so that a command can start the server before it does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence

from precisionbench.measure.worker.fork_client import ForkServer, can_fork

_IDLE_LIMIT_S = 60.0


class SharedServer:
    """Keeps a fork server while it is used, and for some time after.

    A server is replaced where the environment, the import path or the working directory are others
    than when it began. A process that the user's own forks has none: it starts its own.

    Args:
        start: starts a server.
        idle_limit_s: seconds after which an unused server is ended.
    """

    def __init__(
        self, start: Callable[[], ForkServer] = ForkServer, idle_limit_s: float = _IDLE_LIMIT_S
    ) -> None:
        self._start, self._idle_limit_s = start, idle_limit_s
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._users = 0
        self._timer: threading.Timer | None = None

    def begin(self, modules: Sequence[str] = ()) -> None:
        """Start the server, so that it imports torch while the caller does something else.

        Args:
            modules: of well-known libraries, to be imported there as well.
        """
        with self.in_use() as server:
            if server is not None:
                server.import_libraries(modules)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[ForkServer | None]:
        """The server, which is not ended meanwhile; None where the system does not allow one."""
        with self._lock:
            server = self._current()
            self._users += 1
            self._cancel_timer()
        try:
            yield server
        finally:
            with self._lock:
                self._users = max(0, self._users - 1)  # forgotten where this process was forked
                if not self._users:
                    self._start_timer()

    def close(self) -> None:
        """End the server."""
        with self._lock:
            self._cancel_timer()
            self._close()

    def forget(self) -> None:
        """In a process that was just forked from its owner: leave the owner's server alone."""
        if self._server is not None:
            self._server.disown()
        self._reset()

    def _current(self) -> ForkServer | None:
        server = self._server
        if server is not None and server.is_usable and (self._users or server.is_up_to_date()):
            return server
        self._close()
        if can_fork():
            with contextlib.suppress(OSError):  # a sandbox may not allow its kind of socket
                self._server = self._start()
        return self._server

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _start_timer(self) -> None:
        if self._server is not None:
            self._timer = threading.Timer(self._idle_limit_s, self._close_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_idle(self) -> None:
        with self._lock:
            # A timer that was cancelled too late is not the current one.
            if not self._users and self._timer is threading.current_thread():
                self._close()


SHARED_SERVER = SharedServer()
atexit.register(SHARED_SERVER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED_SERVER.forget)
