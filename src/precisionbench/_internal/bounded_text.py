"""Text of others that is kept up to a size: its first and last parts, and how much was left out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from precisionbench.errors import left_out, text_of

_PART = 32_768  # characters that are kept of the first and of the last part
_LINES, _LINE = 100, 2_000  # distinct lines of the first and of the last part, and their length


class BoundedText:
    """Takes text of any length; several threads may write.

    Args:
        part: characters that are kept of its beginning, and of its end.
    """

    def __init__(self, part: int = _PART) -> None:
        self._part = part
        self._first: list[str] = []
        self._room = part
        self._last: list[str] = []
        self._last_size = 0
        self._left_out = 0
        self._lock = threading.RLock()  # a signal handler or finalizer may write meanwhile

    def write(self, text: str) -> None:
        """Take a piece of the text.

        Args:
            text: what follows on what was written before.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            first = text[: self._room]
            last = text[max(len(first), len(text) - self._part) :]
            if first:
                self._first.append(first)
                self._room -= len(first)
            self._last.append(last)
            self._last_size += len(last)
            self._left_out += len(text) - len(first) - len(last)
            if self._last_size > 8 * self._part or len(self._last) > self._part:
                self._trim_last()

    def _trim_last(self) -> None:
        last = "".join(self._last)
        kept = last[-self._part :]
        self._left_out += len(last) - len(kept)
        self._last, self._last_size = [kept], len(kept)

    def lines(self) -> list[str]:
        """Its lines, with one in place of what was left out."""
        with self._lock:
            self._trim_last()
            middle = f"\n{left_out(self._left_out)}\n" if self._left_out else ""
            text = "".join(self._first).removesuffix("\n" * bool(middle)) + middle + self._last[0]
        return text_of(text, len(text)).splitlines()


class BoundedLines:
    """Takes any number of lines; the first and the last distinct ones are kept, each cut in length.

    Args:
        what: what a line is, in the plural, for the line in place of those that were left out.
        part: how many first lines are kept, and how many last ones.
    """

    def __init__(self, what: str, part: int = _LINES) -> None:
        self._what, self._part = what, part
        self._first: dict[str, None] = {}
        self._last: OrderedDict[str, None] = OrderedDict()
        self._left_out = 0

    def add(self, line: object) -> None:
        """Take a line, unless it is one of those that are kept.

        Args:
            line: an object that others made.
        """
        text = text_of(line, _LINE)
        if text in self._first:
            return
        if len(self._first) < self._part:
            self._first[text] = None
            return
        self._last[text] = None
        if len(self._last) > self._part:
            self._last.popitem(last=False)
            self._left_out += 1

    def lines(self) -> list[str]:
        """The lines, with one in place of those that were left out."""
        middle = [f"... {self._left_out} {self._what} left out ..."] if self._left_out else []
        return [*self._first, *middle, *self._last]


def bounded_log(lines: Iterable[str]) -> tuple[str, ...]:
    """The distinct lines of a row's log, as much of them as is kept of any row.

    Args:
        lines: of any number and length, such as a worker process sent.
    """
    kept = BoundedText(4 * _PART)  # for what `OutputCapture` keeps, and the end of a worker's file
    for line in dict.fromkeys(lines):
        kept.write(f"{line}\n")
    return tuple(dict.fromkeys(kept.lines()))


def bounded_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """The distinct warnings of a row, as many of them as are kept of any row.

    Args:
        warnings: of any number and length, such as a worker process sent.
    """
    kept = BoundedLines("warnings", 2 * _LINES)  # for what `OutputCapture` keeps, and those of ours
    for warning in warnings:
        kept.add(warning)
    return tuple(kept.lines())
