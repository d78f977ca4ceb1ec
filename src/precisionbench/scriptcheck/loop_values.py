"""Reads the variables of the loops around a stack of frames, which label what is timed there."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import attrs

from precisionbench.scriptcheck.events import LoopValue
from precisionbench.scriptcheck.frames import UserFrames, local_values, source_of

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MOST_CHARACTERS = 80
_DTYPE = "torch."  # how the text of a dtype begins


@attrs.frozen
class Loop:
    """A loop of a file.

    Attributes:
        names: its variables.
        first: the first line that it repeats.
        last: the last one.
    """

    names: tuple[str, ...]
    first: int
    last: int


class LoopValues:
    """Reads loop variables; where a line is in no loop, it reads one entry of a dictionary.

    Args:
        frames: which frames are the user's.
    """

    def __init__(self, frames: UserFrames) -> None:
        self._frames = frames
        self._names: dict[tuple[int, int], tuple[CodeType, tuple[str, ...] | None]] = {}

    def read(self, frame: FrameType | None, most: int) -> tuple[LoopValue, ...]:
        """The variables of the loops around the user's lines on a stack, the innermost line first.

        Args:
            frame: where to start.
            most: number of the user's frames to read.
        """
        found: tuple[LoopValue, ...] = ()
        known_names = self._names
        while frame is not None:  # each reading of a clock comes here
            code = frame.f_code
            known = known_names.get((id(code), frame.f_lasti))
            names = known[1] if known else self._add_names(frame)
            if names is not None:
                most -= 1
                if names:
                    found += tuple(_values(local_values(frame, names)))
                if not most:
                    break
            frame = frame.f_back
        return found

    def _add_names(self, frame: FrameType) -> tuple[str, ...] | None:
        """Find the variables of the loops around a line; None where the frame is not the user's."""
        names: tuple[str, ...] | None = None
        if self._frames.contains(frame):
            line = frame.f_lineno
            around = (
                loop
                for loop in loops_of(frame.f_code.co_filename)
                if loop.first <= line <= loop.last
            )
            names = tuple(dict.fromkeys(name for loop in around for name in loop.names))
        # with the code, so that its id stays its own
        self._names[id(frame.f_code), frame.f_lasti] = frame.f_code, names
        return names


def _values(variables: dict[str, Any]) -> Iterator[LoopValue]:
    """Texts, dtypes and switches among some variables."""
    for name, value in variables.items():
        text = str(value) if type(value).__name__ in ("str", "bool", "dtype") else ""
        if text:
            yield LoopValue(name, text.removeprefix(_DTYPE)[:_MOST_CHARACTERS])


@functools.lru_cache(maxsize=64)
def loops_of(file: str) -> tuple[Loop, ...]:
    """The loops of a file, which are kept: to find them takes some milliseconds.

    Args:
        file: Python source, as it is named in code objects.
    """
    try:
        nodes = list(ast.walk(ast.parse(source_of(file))))
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(loop for node in nodes for loop in _loops_at(node))


def _loops_at(node: ast.AST) -> Iterator[Loop]:
    """The loops that a node is: a `for` statement, or the parts of a comprehension."""
    if isinstance(node, ast.For) and not _counts(node.iter):
        last = node.body[-1].end_lineno or node.body[-1].lineno
        yield Loop(tuple(_names(node.target)), node.body[0].lineno, last)
    elif isinstance(node, _COMPREHENSIONS):
        for part in node.generators:
            if not _counts(part.iter):
                yield Loop(tuple(_names(part.target)), node.lineno, node.end_lineno or node.lineno)


def _counts(iterated: ast.expr) -> bool:
    """Whether a loop only counts, so that its variable labels nothing."""
    return isinstance(iterated, ast.Call) and ast.unparse(iterated.func).endswith("range")


def _names(target: ast.expr) -> Iterator[str]:
    yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
