"""The worker's end of the channel to its parent: two descriptors that nothing else uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_FIRST_DESCRIPTOR = 900  # out of the way of code that guesses numbers, and below select()'s limit
_READ_BYTES = 1 << 16


class Channel:
    """Where requests come from and answers go; processes that this one starts do not have it.

    Args:
        requests: descriptor to read from.
        answers: descriptor to write to.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close)

    @classmethod
    def instead_of_streams(cls) -> Channel:
        """Take it over from standard input and output, which are then empty and the log."""
        channel = cls(_moved(0), _moved(1))
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        return channel

    def requests(self) -> Iterator[bytes]:
        """The lines of the parent, until it closes its end."""
        rest = b""
        while read := os.read(self._requests, _READ_BYTES):
            *lines, rest = (rest + read).split(b"\n")
            yield from lines

    def write(self, line: bytes) -> None:
        """Write a line, whole.

        Args:
            line: with its line break.
        """
        left = memoryview(line)
        while left:
            left = left[os.write(self._answers, left) :]

    def _close(self) -> None:
        for descriptor in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _moved(descriptor: int) -> int:
    """A copy of a descriptor with a high number, which programs that are started do not get."""
    try:
        import fcntl

        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    except (ImportError, OSError):  # Windows, or a low limit of descriptors
        return os.dup(descriptor)
