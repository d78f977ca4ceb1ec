"""Progress output: a live display on a terminal or in a notebook, else lines of a log.

Nothing runs while calls are timed. The elapsed time (`for 12 s`) is updated by a thread only in
stages without timing; the thread ends with the stage.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING

from precisionbench._internal.interval_text import span
from precisionbench.report.formatting import significant, supported_digits
from precisionbench.results.progress import OnProgress, Progress
from precisionbench.statistics import Interval

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

# Stages in which nothing is timed, so that a thread may update the elapsed time.
_UNTIMED = ("starting", "preparing", "examining")
_REFRESH_EVERY_S = 1.0
_ELAPSED_SHOWN_FROM_S = 2.0  # the elapsed time of a stage is shown from here on
_ROUNDS_LINE_EVERY_S = 10.0  # in a log
_ELAPSED_LINE_EVERY_S = 30.0  # in a log
_MIN_NAME = 12  # columns
_MARGINS = 6  # columns around and between figures
_STAGES = {
    "finishing": "memory, energy and other passes",
    "examining": "looking at what runs in a call",
}


def stage_text(progress: Progress) -> str:
    """The current step in one line.

    Args:
        progress: as `on_progress` receives it.
    """
    phase = f"{progress.phase}: " if progress.phase else ""
    return f"{phase}{_row_text(progress) if progress.backend else _run_text(progress)}"


def _row_text(progress: Progress) -> str:
    where = f"[{progress.position}/{progress.total}] {progress.backend}"
    if progress.stage in ("done", "failed"):
        return f"{where} {progress.stage}{f': {progress.message}' if progress.message else ''}"
    step = f", {progress.step}" if progress.step else ""
    return f"{where}: {_STAGES.get(progress.stage, progress.stage)}{step}"


def _run_text(progress: Progress) -> str:
    if progress.stage == "starting":
        return f"starting {progress.total} worker process{'es' if progress.total != 1 else ''}"
    if progress.stage == "looking":
        return f"measuring {progress.step}"
    if progress.stage == "warming_up":
        return "warming up"
    if progress.stage == "interrupted":
        return "stopping; what is finished is kept (Ctrl-C again ends it at once)"
    left = "" if progress.remaining_s is None else f", about {_time(progress.remaining_s)} left"
    return f"round {progress.position} of at most {progress.total}{left}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def speedups_text(speedups: Mapping[str, Interval]) -> str:
    """Speed-ups with their intervals in one line.

    Args:
        speedups: over the reference, by row.
    """
    return ", ".join(f"{name} {value} ({ends})" for name, value, ends in _ratios(speedups))


def _ratios(speedups: Mapping[str, Interval]) -> Iterator[tuple[str, str, str]]:
    for name, found in speedups.items():
        digits = min(3, supported_digits(found))
        text = partial(significant, digits=digits)
        yield name, f"{text(found.value)}x", span(found, text)


class LogLines:
    """Progress as lines of a log.

    Args:
        stream: to write to.
        now: a clock, in seconds.
    """

    def __init__(self, stream: IO[str], now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._line_s = self._step_s = now()
        self._last: Progress | None = None
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
        self._last, self._step_s = progress, self._now()
        if self._needs_a_line(progress):
            self._line_s = self._now()
            known = speedups_text(progress.speedups)
            self._write(f"{stage_text(progress)}{f': {known}' if known else ''}")
        if progress.stage in _UNTIMED:
            self._repeater.start(self.write_elapsed, _ELAPSED_LINE_EVERY_S)

    def _needs_a_line(self, progress: Progress) -> bool:
        if progress.stage == "measuring" and not progress.backend:
            return self._now() - self._line_s >= _ROUNDS_LINE_EVERY_S
        return progress.stage not in _STAGES and not (progress.backend and progress.step)

    def write_elapsed(self) -> None:
        """Write a line with the elapsed time of the current step."""
        if self._last is not None:
            took = _time(self._now() - self._step_s)
            self._write(f"{stage_text(self._last)}, for {took}")

    def _write(self, line: str) -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # interrupted within a write, or closed
            print(line, file=self._stream, flush=True)


class LiveDisplay:
    """Progress as lines of a terminal or a notebook's cell that are rewritten.

    Args:
        console: to write to.
        now: a clock, in seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._console, self._now = console, now
        self._step_s = now()
        self._last = Progress("", "looking", 0, 0, step="the model")
        self._speedups: Mapping[str, Interval] = {}
        self._repeater = Repeater()
        own_streams = not console.is_jupyter  # a notebook has its own place for printed output
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=own_streams,
            redirect_stderr=own_streams,
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        self._live.update(self, refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._repeater.stop()
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show a step; lines of failures remain on the screen."""
        if progress.stage == "interrupted":  # called from a signal handler: only write
            with contextlib.suppress(RuntimeError):
                self._print(stage_text(progress))
            return
        self._repeater.stop()
        if progress.stage == "failed":
            self._print(f"{progress.backend}: {progress.message}")
        self._last, self._step_s = progress, self._now()
        measuring = progress.stage == "measuring" and not progress.backend
        self._speedups = progress.speedups if measuring else {}
        self._live.refresh()
        if progress.stage in _UNTIMED:
            self._repeater.start(self._live.refresh, _REFRESH_EVERY_S)

    def _print(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style="yellow"))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        took_s = self._now() - self._step_s
        since = f", for {_time(took_s)}" if took_s >= _ELAPSED_SHOWN_FROM_S else ""
        for line in (_fitted(self._last, since, options.max_width), *self._lines(options)):
            yield Text(line, no_wrap=True, overflow="ellipsis")

    def _lines(self, options: ConsoleOptions) -> Iterator[str]:
        """Current speed-ups, one line each."""
        found = list(_ratios(self._speedups))
        if not found:
            return
        values, ends = (max(len(row[i]) for row in found) for i in (1, 2))
        room = options.max_width - values - ends - _MARGINS
        names = max(len(name) for name, _, _ in found)
        for name, value, interval in found:
            shown = _shortened(name, max(_MIN_NAME, min(names, room)))
            yield f"  {shown:<{min(names, room)}}  {value:>{values}}  {interval:>{ends}}"


def _fitted(progress: Progress, since: str, width: int) -> str:
    """The current step in one line, with the row's name cut if the line is too narrow."""
    text = f"{stage_text(progress)}{since}"
    if progress.backend and (excess := len(text) - width) > 0:
        room = max(_MIN_NAME, len(progress.backend) - excess)
        text = text.replace(progress.backend, _shortened(progress.backend, room), 1)
    return text


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


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


@contextlib.contextmanager
def progress_display(console: Console | None = None) -> Iterator[OnProgress]:
    """Show progress: a live display on a terminal or in a notebook, else lines of a log.

        with precisionbench.progress_display() as on_progress:
            precisionbench.compare(model, inputs, on_progress=on_progress)

    Args:
        console: a rich console; None is one on standard error.

    Returns:
        A context manager of what to pass as `on_progress`.
    """
    from rich.console import Console

    stream = sys.stderr
    if stream is None and console is None:  # as in a GUI program
        yield lambda _: None
        return
    console = console or Console(file=stream, highlight=False, emoji=False)
    shown = LiveDisplay(console) if _is_live(console) else LogLines(console.file)
    with shown:
        yield shown


def _is_live(console: Console) -> bool:
    """Whether lines can be rewritten there; FORCE_COLOR alone does not make it a terminal."""
    if console.is_jupyter:
        needed = ("IPython", "ipywidgets")
        return all(name in sys.modules or importlib.util.find_spec(name) for name in needed)
    stream = console.file
    return bool(getattr(stream, "isatty", lambda: False)()) and not console.is_dumb_terminal
