"""Handles SIGTERM: what was begun is undone, and the process then ends by that signal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from precisionbench.errors import Terminated

_REPEATED_WITHIN_S = 5.0


class _Handler:
    """Raises `Terminated`, and once more where something has kept that; not while it is undone."""

    def __init__(self) -> None:
        self.received_s: float | None = None
        self._owner = os.getpid()

    def __call__(self, _: int, __: FrameType | None) -> None:
        if os.getpid() != self._owner:  # the user's code has forked this process
            _end_by_signal()
        now_s = time.monotonic()
        if self.received_s is None or now_s - self.received_s > _REPEATED_WITHIN_S:
            self.received_s = now_s
            raise Terminated


@contextlib.contextmanager
def terminated_in_order(before_end: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, and end this process by SIGTERM on leaving then.

    Only in the main thread, and where the system's own action is in force: an application that
    handles the signal itself is not interfered with.

    Args:
        before_end: called last.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    handler, kept = _Handler(), Terminated.kept
    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    except Terminated as exc:
        kept = exc.kept
    finally:
        if handler.received_s is not None:
            _end(kept, before_end)
        elif signal.getsignal(signal.SIGTERM) is handler:  # the model may have set its own
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(kept: str, before_end: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        before_end()
    with contextlib.suppress(Exception):
        print(f"precisionbench: ended by SIGTERM; {kept}", file=sys.stderr)
        sys.stderr.flush()
    _end_by_signal()


def _end_by_signal() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(128 + signal.SIGTERM)  # the first process of a container takes no default action
