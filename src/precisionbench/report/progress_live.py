"""Progress in a region of a terminal or of a notebook's cell that is drawn anew at each step.

Nothing is drawn while calls are timed: `on_progress` is called between measurements, and rich's
thread that refreshes a display is off. So the elapsed time stands still during a round; a clock
that ticks would take processor time from what is measured. A thread updates it only in stages in
which nothing is timed (a build may take minutes), and ends with the stage.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from precisionbench._internal.repeater import Repeater
from precisionbench.report.plain import styled
from precisionbench.report.progress_state import (
    UNTIMED_STAGES,
    DisplayState,
    clock_text,
    ratio_texts,
    speedups_text,
    stage_text,
    times_text,
)
from precisionbench.report.short_names import short_names
from precisionbench.results.progress import Progress

_REFRESH_EVERY_S = 1.0
_STEP_SHOWN_FROM_S = 2.0  # the elapsed time of a step is shown from here on
_MAX_BAR, _MIN_BAR = 40, 8  # columns
_GAP = 2  # columns between the bar and the times
_MIN_NAME = 12  # columns
_MARGINS = 6  # columns around and between figures


class Region(Protocol):
    """A place on the screen whose content can be replaced."""

    def start(self) -> None:
        """Show it."""

    def refresh(self) -> None:
        """Draw it anew."""

    def stop(self) -> None:
        """Remove it."""


class TerminalRegion:
    """Lines of a terminal.

    Args:
        console: to write to.
        content: what is drawn.
    """

    def __init__(self, console: Console, content: ConsoleRenderable) -> None:
        is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
        self._console = console
        self._live = Live(
            content,
            console=console,
            auto_refresh=False,
            transient=True,
            # What is printed meanwhile appears above the region, because it goes to this console;
            # a redirected stdout must stay as it is.
            redirect_stdout=is_terminal,
        )

    def start(self) -> None:
        """Show it."""
        self._live.start(refresh=True)
        self._console.show_cursor(True)  # a killed process could not show it again

    def refresh(self) -> None:
        """Draw it anew."""
        self._live.refresh()

    def stop(self) -> None:
        """Remove it."""
        self._live.stop()


class NotebookRegion:
    """A part of a cell's output. rich's own needs ipywidgets; IPython alone can update one, too.

    Args:
        content: what is drawn.
    """

    def __init__(self, content: ConsoleRenderable) -> None:
        self._content = content
        self._handle: Any = None

    def start(self) -> None:
        """Show it."""
        from IPython.display import display

        show: Any = display  # it has no annotations
        self._handle = show(self._content, display_id=True)

    def refresh(self) -> None:
        """Draw it anew."""
        self._replace(self._content)

    def stop(self) -> None:
        """Remove it; an empty output remains."""
        self._replace(styled())

    def _replace(self, content: ConsoleRenderable) -> None:
        if self._handle is not None:  # IPython without a shell has no handles
            self._handle.update(content)


class LiveDisplay(JupyterMixin):
    """Progress with a bar, times and speed-ups, in a region of a terminal or a notebook.

    Args:
        console: to write to.
        now: a clock, in seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console, self._now = console, now
        self._state = DisplayState(now(), now())
        self._repeater = Repeater()
        self._region: Region = (
            NotebookRegion(self) if console.is_jupyter else TerminalRegion(console, self)
        )

    def __enter__(self) -> LiveDisplay:
        self._region.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._repeater.stop()
        self._region.stop()

    def __call__(self, progress: Progress) -> None:
        """Show a step; lines of failures remain on the screen."""
        if progress.stage == "interrupted":  # called from a signal handler: only write
            with contextlib.suppress(RuntimeError):
                self._print(stage_text(progress))
            return
        self._repeater.stop()
        if progress.stage in ("failed", "left_out"):
            self._print(f"{progress.backend}: {progress.message}")
            return
        self._state = self._state.after(progress, self._now())
        self._region.refresh()
        if progress.stage in UNTIMED_STAGES:
            self._repeater.start(self._region.refresh, _REFRESH_EVERY_S)

    def _print(self, text: str) -> None:
        self._console.print(styled(text, style="yellow"))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        state, now_s, width = self._state, self._now(), options.max_width
        yield _line(_headline(state, now_s, width))
        yield _bar_and_times(state, now_s, width)
        for line in _speedup_lines(state, width):
            yield _line(line)


def _line(text: str) -> Text:
    found = styled(text)
    found.no_wrap, found.overflow = True, "ellipsis"
    return found


def _headline(state: DisplayState, now_s: float, width: int) -> str:
    """The current step in one line, with the row's name cut if the line is too narrow."""
    took_s = now_s - state.step_s
    since = f", for {clock_text(took_s)}" if took_s >= _STEP_SHOWN_FROM_S else ""
    text = f"{stage_text(state.latest)}{since}"
    name = state.latest.backend if state.latest else ""
    if name and (excess := len(text) - width) > 0:
        (short,) = short_names([name], max(_MIN_NAME, len(name) - excess))
        text = text.replace(name, short, 1)
    return text


def _bar_and_times(state: DisplayState, now_s: float, width: int) -> Text | Table:
    """Without an estimate, or where a bar has no room, the times alone."""
    times = times_text(state, now_s)
    room = min(_MAX_BAR, width - len(times) - _GAP)
    if state.ends_s is None or room < _MIN_BAR:
        return _line(times)
    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(width=room)
    table.add_column(no_wrap=True)
    table.add_row(ProgressBar(total=1.0, completed=state.share_at(now_s)), times)
    return table


def _speedup_lines(state: DisplayState, width: int) -> Iterator[str]:
    """Current speed-ups: all in one line, or one line each where that is too narrow."""
    in_one = speedups_text(state.speedups)
    if len(in_one) <= width:
        yield from [in_one] if in_one else []
        return
    found = list(ratio_texts(state.speedups))
    values, ends = (max(len(row[i]) for row in found) for i in (1, 2))
    names = min(max(len(name) for name, _, _ in found), width - values - ends - _MARGINS)
    shown_names = short_names([name for name, _, _ in found], max(_MIN_NAME, names))
    for shown, (_, value, interval) in zip(shown_names, found, strict=True):
        yield f"  {shown:<{names}}  {value:>{values}}  {interval:>{ends}}"
