"""Handles Ctrl-C: the first finishes the block and keeps the rounds, the second interrupts."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupts:
    """Handles the user's interrupts while rounds are measured.

    Args:
        on_first: called by the signal handler of the first.

    Attributes:
        requested: whether there was a first.
    """

    def __init__(self, on_first: Callable[[], object] = lambda: None) -> None:
        self.requested = False
        self._on_first = [on_first]

    def also_call(self, on_first: Callable[[], object]) -> None:
        """Call something more at the first interrupt, or now where that has been.

        Args:
            on_first: called by the signal handler.
        """
        self._on_first.append(on_first)
        if self.requested:
            on_first()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the first interrupt set `requested`; the second raises KeyboardInterrupt as usual.

        Only in the main thread, and where Python's default handler is installed: an application
        that handles signals itself is not interfered with.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._first)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _first(self, _: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.request()

    def request(self) -> None:
        """Do what the first interrupt does: for one that has come outside of `held`."""
        self.requested = True
        for call in list(self._on_first):
            call()
