"""Captures what plugins, models and libraries print and warn, so that it stays off the terminal."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from precisionbench.errors import PrecisionBenchWarning


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard what is printed and warned within the context."""
    with warnings.catch_warnings(), _redirected(lambda _: None):
        warnings.simplefilter("ignore")
        yield


class OutputCapture:
    """Captures what plugins, models and their libraries print and warn; it belongs to one row."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._caught: list[warnings.WarningMessage] = []
        self._own: list[str] = []

    def warn(self, message: str) -> None:
        """Add a warning of ours.

        Args:
            message: what qualifies the row's result.
        """
        self._own.append(message)

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Capture what is printed and warned within the context."""
        with warnings.catch_warnings(record=True) as caught, _redirected(self._text.write):
            warnings.simplefilter("always")
            try:
                yield
            finally:
                self._caught += caught

    def warnings(self) -> tuple[str, ...]:
        """What qualifies the row's result."""
        caught = [
            str(caught.message)
            for caught in self._caught
            if issubclass(caught.category, PrecisionBenchWarning)
        ]
        return tuple(dict.fromkeys(self._own + caught))

    def log(self) -> tuple[str, ...]:
        """What was printed, and the warnings of other libraries."""
        others = [
            f"{caught.category.__name__}: {caught.message}"
            for caught in self._caught
            if not issubclass(caught.category, PrecisionBenchWarning)
        ]
        return tuple(dict.fromkeys([*self._text.getvalue().splitlines(), *others]))


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
