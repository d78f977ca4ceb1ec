"""What others print and warn of while we work: kept with the row, and off the user's terminal."""

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
    """Let nothing that is printed or warned meanwhile reach the user's terminal."""
    with warnings.catch_warnings(), _redirected(lambda _: None):
        warnings.simplefilter("ignore")
        yield


class OutputCapture:
    """Keeps what plugins, models and their libraries print and warn of, instead of showing it."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._caught: list[warnings.WarningMessage] = []
        self._own: list[str] = []

    def warn(self, message: str) -> None:
        """Keep something that a reader of the row must know."""
        self._own.append(message)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what is printed and warned meanwhile."""
        with warnings.catch_warnings(record=True) as caught, _redirected(self._text.write):
            warnings.simplefilter("always")
            try:
                yield
            finally:
                self._caught += caught

    def warnings(self) -> tuple[str, ...]:
        """What a reader of the row must know."""
        ours = [
            str(caught.message)
            for caught in self._caught
            if issubclass(caught.category, PrecisionBenchWarning)
        ]
        return tuple(dict.fromkeys(self._own + ours))

    def log(self) -> tuple[str, ...]:
        """What was printed, and warned by others."""
        foreign = [
            f"{caught.category.__name__}: {caught.message}"
            for caught in self._caught
            if not issubclass(caught.category, PrecisionBenchWarning)
        ]
        return tuple(dict.fromkeys([*self._text.getvalue().splitlines(), *foreign]))


@contextlib.contextmanager
def _redirected(keep: Callable[[str], object]) -> Iterator[None]:
    out, err = _Sink(sys.stdout, keep), _Sink(sys.stderr, keep)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        out.keeps = err.keeps = False


class _Sink:
    """Stands in for a stream, and keeps what is written instead of passing it on.

    Two writers are not ours to keep back: threads that ran before, and whoever holds the sink for
    longer than the redirection lasts, such as a logging handler that a plugin's import has made.
    """

    def __init__(self, stream: Any, keep: Callable[[str], object]) -> None:
        self.keeps = True
        self._stream, self._keep = stream, keep
        ours = threading.get_ident()
        self._others = {thread.ident for thread in threading.enumerate()} - {ours}

    def write(self, text: str) -> int:
        if self.keeps and threading.get_ident() not in self._others:
            self._keep(text)
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
