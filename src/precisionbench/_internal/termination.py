"""Handles SIGTERM and SIGHUP: what was begun is undone, and the process ends by that signal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from precisionbench.errors import Terminated, kept_at

_REPEATED_WITHIN_S = 5.0
# A terminal that is closed sends SIGHUP; Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Handler:
    """Raises `Terminated`, and once more where something has kept that; not while it is undone."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_s = 0.0
        self._owner = os.getpid()

    def __call__(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:  # the user's code has forked this process
            _end_by(signal.Signals(number))
        now_s = time.monotonic()
        if self.received is None or now_s - self._received_s > _REPEATED_WITHIN_S:
            self.received, self._received_s = signal.Signals(number), now_s
            raise Terminated


@contextlib.contextmanager
def terminated_in_order(before_end: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated`, and end this process by them on leaving then.

    Only in the main thread, and for signals of which the system's own action is in force: an
    application that handles one itself is not interfered with, and nohup has its effect.

    Args:
        before_end: called last.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [one for one in _SIGNALS if in_main_thread and signal.getsignal(one) is signal.SIG_DFL]
    handler, kept = _Handler(), Terminated.kept
    for one in ours:
        signal.signal(one, handler)
    try:
        yield
    except Terminated as exc:
        if handler.received is None:  # that of a caller has raised it
            raise
        kept = kept_at(exc)
    finally:
        if handler.received is not None:
            _end(handler.received, kept, before_end)
        for one in ours:
            if signal.getsignal(one) is handler:  # the model may have set its own
                signal.signal(one, signal.SIG_DFL)


def _end(received: signal.Signals, kept: str, before_end: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        before_end()
    with contextlib.suppress(Exception):
        print(f"precisionbench: ended by {received.name}; {kept}", file=sys.stderr)
        sys.stderr.flush()
    _end_by(received)


def _end_by(received: signal.Signals) -> None:
    signal.signal(received, signal.SIG_DFL)
    os.kill(os.getpid(), received)
    os._exit(128 + received)  # the first process of a container takes no default action
