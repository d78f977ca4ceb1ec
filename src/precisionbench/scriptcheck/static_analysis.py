"""What stands in a script's text: read, not run.

It says what a run could not show, on a machine without the GPU or without Apex, and which
differences of readings are the condition of a loop and no result.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import attrs

from precisionbench.scriptcheck.events import Place

_CLOCKS = (
    *(
        f"time.{name}{unit}"
        for name in ("perf_counter", "time", "monotonic")
        for unit in ("", "_ns")
    ),
    "timeit.default_timer",
    "datetime.datetime.now",
)
# Methods that do not come back before the device is done.
_WAITING = ("synchronize", "item", "cpu", "numpy", "tolist")
_PATCHED = ("torch.nn.functional", "torch.Tensor", "torch")
_INITIALIZE = "apex.amp.initialize"
_PATCHING_LEVEL = "O1"


@attrs.frozen
class Unsynchronized:
    """Readings with calls between them and nothing that waits for the device.

    Attributes:
        start: the first reading.
        end: the second.
    """

    start: Place
    end: Place


@attrs.frozen
class Patch:
    """A line that patches torch, with models that are timed later.

    Attributes:
        place: the line.
        says: what it does.
    """

    place: Place
    says: str


@attrs.frozen
class Text:
    """What a script's text says.

    Attributes:
        uses_cuda: whether it names CUDA.
        unsynchronized: timed regions without a wait.
        patches: of torch, that are not undone.
        conditions: lines on which a difference is only compared with something.
    """

    uses_cuda: bool = False
    unsynchronized: tuple[Unsynchronized, ...] = ()
    patches: tuple[Patch, ...] = ()
    conditions: frozenset[int] = frozenset()


def read(source: str, file: str) -> Text:
    """What stands in a script.

    Args:
        source: its text.
        file: its name, for places.

    Returns:
        What was found; nothing where the text is no Python.
    """
    try:
        reader = _Reader(ast.parse(source), file)
    except (SyntaxError, ValueError, RecursionError):
        return Text()
    return Text(
        reader.uses_cuda(),
        tuple(sorted(set(reader.unsynchronized()), key=lambda one: one.end.line)),
        tuple(reader.patches()),
        reader.conditions(),
    )


class _Reader:
    """Looks through a syntax tree."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self._file = file
        self._nodes = list(ast.walk(tree))
        self._names = dict(self._imported())
        self._calls = [node for node in self._nodes if isinstance(node, ast.Call)]

    def _imported(self) -> Iterator[tuple[str, str]]:
        """What names that were imported stand for."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or whole, whole
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"

    def _full_name(self, node: ast.AST) -> str:
        """A dotted name with what was imported spelled out; empty for anything else."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self._full_name(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def _place(self, line: int) -> Place:
        return Place(self._file, line)

    def uses_cuda(self) -> bool:
        """Whether a string or a method names CUDA."""
        return any(
            (isinstance(node, ast.Constant) and str(node.value).startswith("cuda"))
            or (isinstance(node, ast.Attribute) and node.attr == "cuda")
            for node in self._nodes
        )

    def conditions(self) -> frozenset[int]:
        """Lines on which a difference is compared."""
        return frozenset(
            part.lineno
            for node in self._nodes
            if isinstance(node, ast.Compare)
            for part in ast.walk(node)
            if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub)
        )

    def unsynchronized(self) -> Iterator[Unsynchronized]:
        """Pairs of readings whose difference is taken, with calls between and no wait."""
        readings, conditions = self._named_readings(), self.conditions()
        for node in self._nodes:
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
                continue
            end = self._line_of_reading(node.left, node.lineno, readings)
            start = self._line_of_reading(node.right, (end or 1) - 1, readings)
            if node.lineno in conditions or start is None or end is None:
                continue
            between = [call for call in self._calls if start < call.lineno < end]
            if between and not any(self._waits(call) for call in between):
                yield Unsynchronized(self._place(start), self._place(end))

    def _named_readings(self) -> dict[str, list[int]]:
        """Lines on which a name is given a reading."""
        found: dict[str, list[int]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Assign) and self._is_reading(node.value):
                for target in node.targets:
                    found.setdefault(ast.unparse(target), []).append(node.lineno)
        return found

    def _is_reading(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and self._full_name(node.func) in _CLOCKS

    def _line_of_reading(
        self, node: ast.expr, before: int, readings: dict[str, list[int]]
    ) -> int | None:
        """Where an operand was read: in place, or at the last assignment up to a line."""
        if self._is_reading(node):
            return node.lineno
        lines = [line for line in readings.get(ast.unparse(node), []) if line <= before]
        return max(lines, default=None)

    def _waits(self, call: ast.Call) -> bool:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        return name in _WAITING

    def patches(self) -> Iterator[Patch]:
        """Apex at O1 with something timed after it, and assignments to torch's functions."""
        last = max((node.lineno for node in self._calls if self._is_reading(node)), default=0)
        for call in self._calls:
            if self._full_name(call.func) == _INITIALIZE and self._goes_on_after(call, last):
                says = "apex.amp.initialize with opt_level O1, and other models are timed after it"
                yield Patch(self._place(call.lineno), says)
        targets = [name for node in self._nodes for name in self._assigned(node)]
        for name, line in targets:
            if [other for other, _ in targets].count(name) == 1 and line < last:
                yield Patch(self._place(line), f"{name} is replaced and not put back")

    def _assigned(self, node: ast.AST) -> Iterator[tuple[str, int]]:
        """Functions of torch that an assignment replaces."""
        if not isinstance(node, ast.Assign):
            return
        for target in node.targets:
            name = self._full_name(target)
            if isinstance(target, ast.Attribute) and name.rpartition(".")[0] in _PATCHED:
                yield name, node.lineno

    def _goes_on_after(self, call: ast.Call, last_reading: int) -> bool:
        """Whether this call asks for O1 and another model is timed after that."""
        given = [keyword.value for keyword in call.keywords if keyword.arg == "opt_level"]
        level = given[0] if given else ast.Constant(_PATCHING_LEVEL)  # what Apex does by default
        loop = self._loop_over(level)
        if loop is None:
            is_o1 = isinstance(level, ast.Constant) and level.value == _PATCHING_LEVEL
            # the first two readings after it time its own model
            later = sum(self._is_reading(c) and c.lineno > call.lineno for c in self._calls)
            return is_o1 and later > 2
        levels = [value.value for value in _elements(loop) if isinstance(value, ast.Constant)]
        if _PATCHING_LEVEL not in levels:
            return False
        return levels[-1] != _PATCHING_LEVEL or last_reading > (loop.end_lineno or loop.lineno)

    def _loop_over(self, level: ast.expr) -> ast.For | None:
        """The loop whose variable gives the level."""
        if not isinstance(level, ast.Name):
            return None
        loops = (node for node in self._nodes if isinstance(node, ast.For))
        return next((loop for loop in loops if ast.unparse(loop.target) == level.id), None)


def _elements(loop: ast.For) -> list[ast.expr]:
    return loop.iter.elts if isinstance(loop.iter, (ast.List, ast.Tuple)) else []
