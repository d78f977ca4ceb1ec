"""Captures what plugins, models and libraries print and warn, so that it stays off the terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from precisionbench._internal.bounded_text import BoundedLines, BoundedText
from precisionbench.errors import PrecisionBenchWarning, text_of


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard what is printed and warned within the context."""
    with warnings.catch_warnings(), _redirected(lambda _: None):
        warnings.simplefilter("ignore")
        yield


class OutputCapture:
    """Captures what plugins, models and their libraries print and warn; it belongs to one row.

    Of many or long texts the first and last parts are kept, and how much was left out.
    """

    def __init__(self) -> None:
        self._text = BoundedText()
        self._own: list[str] = []
        self._qualifying, self._others = BoundedLines("warnings"), BoundedLines("warnings")

    def warn(self, message: str) -> None:
        """Add a warning of ours.

        Args:
            message: what qualifies the row's result.
        """
        self._own.append(message)

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Capture what is printed and warned within the context."""
        with warnings.catch_warnings(), _redirected(self._text.write):
            warnings.simplefilter("always")
            warnings.showwarning = self._take_warning  # a list of them would grow without limit
            yield

    def _take_warning(
        self, message: Warning | str, category: type[Warning], *_: Any, **__: Any
    ) -> None:
        if issubclass(category, PrecisionBenchWarning):
            self._qualifying.add(message)
        else:
            self._others.add(f"{category.__name__}: {text_of(message)}")

    def warnings(self) -> tuple[str, ...]:
        """What qualifies the row's result."""
        return tuple(dict.fromkeys([*self._own, *self._qualifying.lines()]))

    def log(self) -> tuple[str, ...]:
        """What was printed, and the warnings of other libraries."""
        return tuple(dict.fromkeys([*self._text.lines(), *self._others.lines()]))


@contextlib.contextmanager
def _redirected(capture: Callable[[str], object]) -> Iterator[None]:
    out, err = _Sink(sys.stdout, capture), _Sink(sys.stderr, capture)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        out.captures = err.captures = False


class _Sink:
    """Replaces a stream, and captures what is written instead of passing it on.

    The text of two writers is passed on: of threads that ran before, and of those that hold the
    sink for longer than the redirection, such as a logging handler that a plugin's import made.
    """

    def __init__(self, stream: Any, capture: Callable[[str], object]) -> None:
        self.captures = True
        self._stream, self._capture = stream, capture
        running = {thread.ident for thread in threading.enumerate()}
        self._others = running - {threading.get_ident()}

    def write(self, text: str) -> int:
        if self.captures and threading.get_ident() not in self._others:
            self._capture(text)
        elif self._stream is not None:
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
