"""A thread that calls a function at intervals."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeater:
    """Calls a function at intervals in a thread, until it is stopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, action: Callable[[], object], every_s: float) -> None:
        """Start the thread.

        Args:
            action: function to call.
            every_s: seconds between two calls.
        """
        self.stop()
        self._stopped = stopped = threading.Event()

        def repeat() -> None:
            while not stopped.wait(every_s):
                action()

        self._thread = threading.Thread(target=repeat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
