"""Ctrl-C once finishes the block and keeps the rounds; twice ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupts:
    """Counts the user's interrupts while rounds are measured.

    Args:
        on_first: called when the first has come, from within its handling.

    Attributes:
        requested: whether the first has come.
    """

    def __init__(self, on_first: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self._on_first = on_first

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Take the first interrupt as a request; the second raises KeyboardInterrupt as ever.

        Only where Python's own handler is in force and this is the main thread: an application's
        own handling of signals is its own.
        """
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._first)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _first(self, _: int, __: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._on_first()
