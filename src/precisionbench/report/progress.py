"""Progress output: a live display on a terminal or in a notebook, else lines of a log."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from precisionbench import safe_text
from precisionbench._internal.repeater import Repeater
from precisionbench.errors import SpecError
from precisionbench.report.progress_state import (
    UNTIMED_STAGES,
    DisplayState,
    clock_text,
    speedups_text,
    stage_text,
    times_text,
)
from precisionbench.results.progress import OnProgress, OnProgressOption, Progress

if TYPE_CHECKING:
    from rich.console import Console

_ROUNDS_LINE_EVERY_S = 10.0
_ELAPSED_LINE_EVERY_S = 30.0
_WITHOUT_LINES = ("finishing", "examining")  # stages
# Variables of runs that nobody watches, although stderr may be a terminal there.
_UNWATCHED = ("CI", "PYTEST_CURRENT_TEST")
_screen = threading.Lock()  # held while a display is shown


class LogLines:
    """Progress as lines of a log.

    Args:
        stream: to write to.
        now: a clock, in seconds.
    """

    def __init__(self, stream: IO[str], now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._line_s = now()
        self._state = DisplayState(now(), now())
        self._repeater = Repeater()

    def __enter__(self) -> LogLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._repeater.stop()

    def __call__(self, progress: Progress) -> None:
        """Write a line for a step, unless it is too short for one."""
        if progress.stage == "interrupted":  # called from a signal handler: only write
            self._write(stage_text(progress))
            return
        self._repeater.stop()
        self._state = self._state.after(progress, self._now())
        if _is_round(progress):
            self._write_round()
        elif progress.stage not in _WITHOUT_LINES and not (progress.backend and progress.step):
            self._write(stage_text(progress))
        if progress.stage in UNTIMED_STAGES:
            self._repeater.start(self.write_elapsed, _ELAPSED_LINE_EVERY_S)

    def _write_round(self) -> None:
        state, now_s = self._state, self._now()
        if now_s - self._line_s < _ROUNDS_LINE_EVERY_S:
            return
        known = f": {speedups_text(state.speedups)}" if state.speedups else ""
        self._write(f"{stage_text(state.latest)} ({times_text(state, now_s)}){known}")

    def write_elapsed(self) -> None:
        """Write a line with the elapsed time of the current step."""
        took = clock_text(self._now() - self._state.step_s)
        self._write(f"{stage_text(self._state.latest)}, for {took}")

    def _write(self, line: str) -> None:
        self._line_s = self._now()
        with contextlib.suppress(RuntimeError, ValueError):  # interrupted within a write, or closed
            print(safe_text.line(line), file=self._stream, flush=True)


def _is_round(progress: Progress) -> bool:
    return progress.stage == "measuring" and not progress.backend


@contextlib.contextmanager
def progress_display(console: Console | None = None) -> Iterator[OnProgress]:
    """Show progress: a live display on a terminal or in a notebook, else lines of a log.

        with precisionbench.progress_display() as on_progress:
            precisionbench.compare(model, inputs, on_progress=on_progress)

    Args:
        console: a rich console; None is one on stderr.

    Returns:
        A context manager of what to pass as `on_progress`.
    """
    stream = sys.stderr
    if stream is None and console is None:  # as in a GUI program
        yield lambda _: None
        return
    with _on_screen(), _display(console or _console(stream)) as shown:
        yield shown


@contextlib.contextmanager
def shown(on_progress: OnProgressOption) -> Iterator[OnProgress | None]:
    """The callback for the argument `on_progress` of a function that measures.

    Args:
        on_progress: `"auto"` shows progress where a person is likely to watch: in a notebook, or
            where stderr is a terminal, but not in CI, in a test, in a thread or within
            another display.

    Returns:
        A context manager of the callback; None where nothing is shown.

    Raises:
        SpecError: it cannot be called.
    """
    if on_progress != "auto":
        if on_progress is not None and not callable(on_progress):
            fix = "give a function of one Progress, 'auto' or None"
            raise SpecError(f"on_progress is {on_progress!r}", fix)
        yield on_progress
    elif _is_watched():
        with progress_display() as display:
            yield display
    else:
        yield None


def _is_watched() -> bool:
    """Whether a person is likely to watch; rich is imported in notebooks only."""
    if _screen.locked() or any(os.environ.get(name) for name in _UNWATCHED):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    stream = sys.stderr
    return _is_terminal(stream) or ("IPython" in sys.modules and _console(stream).is_jupyter)


@contextlib.contextmanager
def _on_screen() -> Iterator[None]:
    is_first = _screen.acquire(blocking=False)
    try:
        yield
    finally:
        if is_first:
            _screen.release()


def _console(stream: IO[str] | None) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, emoji=False)


def _display(console: Console) -> contextlib.AbstractContextManager[OnProgress]:
    if not _is_live(console):
        return LogLines(console.file)
    from precisionbench.report.progress_live import LiveDisplay

    return LiveDisplay(console)


def _is_live(console: Console) -> bool:
    """Whether lines can be replaced there; FORCE_COLOR alone does not make it a terminal."""
    if console.is_jupyter:
        return "IPython" in sys.modules or importlib.util.find_spec("IPython") is not None
    return console.is_terminal and _is_terminal(console.file) and not console.is_dumb_terminal


def _is_terminal(stream: IO[str] | None) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())
