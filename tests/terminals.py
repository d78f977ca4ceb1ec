"""A command on a pseudo-terminal: its output, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

BOOT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell had it ignored
sys.path.insert(0, ".")
from precisionbench.cli import main
main(sys.argv[1:], prog_name="precisionbench")
"""
# Colours, and movements of the cursor.
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A running command and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self._process, self._end = process, end
        self.shown = ""

    def read_until(self, text: str) -> str:
        """Read until a text appears; fails if the command ends before."""
        while text not in _CODES.sub("", self.shown):
            chunk = self._chunk()
            assert chunk, f"{text!r} did not appear in: {self.plain()}"
        return self.plain()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def read_all(self) -> str:
        """Read to the end."""
        while self._chunk():
            pass
        return self.plain()

    def exit_code(self) -> int:
        self.read_all()
        return self._process.wait(600)

    def plain(self) -> str:
        """The output so far, without colours."""
        return _CODES.sub("", self.shown).replace("\r\n", "\n")

    def _chunk(self) -> str:
        try:
            chunk = os.read(self._end, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            return ""
        self.shown += chunk
        return chunk


@contextlib.contextmanager
def running(
    *args: str, code: str = BOOT, stdout: IO[str] | None = None, **environ: str
) -> Iterator[Terminal]:
    """Run a command of precisionbench on a terminal of 100 columns, in the working directory.

    Args:
        args: of the command.
        code: to run instead.
        stdout: where its standard output leads; None is the terminal.
        environ: additional environment variables.
    """
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **environ}
    command = [sys.executable, "-c", code, *args]
    out = theirs if stdout is None else stdout
    process = subprocess.Popen(command, stdin=theirs, stdout=out, stderr=theirs, env=env)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait(600)
        os.close(ours)
