"""Decides which stack frames run the user's code, and on which line."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterable
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from precisionbench.scriptcheck.events import Place

_LIBRARY_FOLDERS = ("site-packages", "dist-packages")
_SMALL = (bool, int, float, str, type(None))  # values that hold no other ones
TIMEIT = "<timeit-src>"  # the code that timeit generates for a statement

Line = tuple[str, int]  # file and line number, as Python has them


class UserFrames:
    """Distinguishes the user's frames from those of libraries."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {TIMEIT: True}
        self._lines: dict[tuple[int, int], tuple[CodeType, Line | None]] = {}
        self._stdlib = sysconfig.get_paths()["stdlib"]
        self._library_roots = (self._stdlib, str(Path(__file__).parent.parent))

    def contains(self, frame: FrameType) -> bool:
        """Whether this frame runs the script or a module of its author.

        Args:
            frame: any frame.
        """
        return self.is_user_code(frame.f_code)

    def is_user_code(self, code: CodeType) -> bool:
        """Whether this code is the script's, or that of a module of its author.

        Args:
            code: of a function or a module.
        """
        name = code.co_filename
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._is_user_file(name)
        return known

    def _is_user_file(self, name: str) -> bool:
        if name.startswith("<") or any(part in name for part in _LIBRARY_FOLDERS):
            return False
        return not str(Path(name).absolute()).startswith(self._library_roots)

    def call_stdlib(self, frame: FrameType | None) -> bool:
        """Whether the innermost frame that is not Python's own is the user's.

        Args:
            frame: where to start.
        """
        while frame is not None and not self.contains(frame):
            name = frame.f_code.co_filename
            is_own = name.startswith((self._stdlib, "<frozen"))
            if not is_own or any(part in name for part in _LIBRARY_FOLDERS):
                return False
            frame = frame.f_back
        return frame is not None

    def call_tools(self, frame: FrameType | None) -> bool:
        """Whether the user's code led to a frame through Python's own code and our hooks alone.

        Args:
            frame: where to start.
        """
        while frame is not None and frame.f_code.co_filename.startswith(self._library_roots[1]):
            frame = frame.f_back
        return self.call_stdlib(frame)

    def line(self, frame: FrameType | None) -> Line:
        """The innermost line of the user's code on the stack of a frame.

        Args:
            frame: where to start.
        """
        while frame is not None:  # and not by `lines`: each call of a model comes here
            line = self._line_in(frame)
            if line is not None:
                return line
            frame = frame.f_back
        return "?", 0

    def _line_in(self, frame: FrameType) -> Line | None:
        """The line that a frame runs, if it is the user's; kept, because Python counts it anew."""
        code = frame.f_code
        key = id(code), frame.f_lasti
        known = self._lines.get(key)
        if known is None:
            file = code.co_filename
            is_shown = self.is_user_code(code) and file != TIMEIT
            line = (file, frame.f_lineno) if is_shown else None
            known = self._lines[key] = code, line  # keeps the code, so that its id stays its own
        return known[1]

    def lines(self, frame: FrameType | None, most: int) -> list[Line]:
        """The lines of the user's code on the stack of a frame, the innermost first.

        Args:
            frame: where to start.
            most: number of lines.
        """
        found: list[Line] = []
        while frame is not None and len(found) < most:
            line = self._line_in(frame)
            if line is not None:
                found.append(line)
            frame = frame.f_back
        return found


def local_values(frame: FrameType, names: Iterable[str]) -> dict[str, Any]:
    """Some local variables of a frame, without keeping alive what the others hold.

    Until Python 3.12, a function's frame keeps the dictionary of its variables that was made here.
    A model that the script deletes next would stay in memory.

    Args:
        frame: of the script.
        names: of the variables; those that have no value yet are left out.
    """
    scope = frame.f_locals
    found = {name: scope[name] for name in names if name in scope}
    if sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED:
        for name in [name for name, value in scope.items() if type(value) not in _SMALL]:
            del scope[name]
    return found


def source_of(file: str) -> str:
    """The source of a file that was imported or run; empty where there is none.

    Args:
        file: as it is named in code objects.
    """
    return "".join(linecache.getlines(file))


def place_of(line: Line) -> Place:
    """A line with its path relative to the working directory, if it is below that.

    Args:
        line: file and line number.
    """
    return _place(line, os.getcwd())


@functools.lru_cache(maxsize=4096)  # thousands of readings are on a few lines
def _place(line: Line, folder: str) -> Place:
    file, number = line
    path, cwd = Path(file), Path(folder)
    inside = path.is_absolute() and path.is_relative_to(cwd)
    return Place(str(path.relative_to(cwd)) if inside else file, number)
