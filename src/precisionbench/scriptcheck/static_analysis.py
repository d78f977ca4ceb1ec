"""Static analysis of a script's source.

It finds what a run cannot show on a machine without a GPU or Apex, and which differences of
readings are only compared, as in the condition of a loop.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TypeGuard

import attrs

from precisionbench.scriptcheck.events import Place
from precisionbench.scriptcheck.static_claims import NO_CLAIMS, StaticClaims, claims_of
from precisionbench.scriptcheck.static_waits import may_wait

_CLOCKS = (
    *(
        f"time.{name}{unit}"
        for name in ("perf_counter", "time", "monotonic")
        for unit in ("", "_ns")
    ),
    "timeit.default_timer",
    "datetime.datetime.now",
)
_AUTOCAST = ("autocast", "GradScaler", "is_autocast_available", "is_autocast_enabled")
_CUDA_DEVICE = re.compile(r"cuda(:\d*)?")
_PATCHED_MODULES = ("torch.nn.functional", "torch.Tensor", "torch")
_SET_THREADS = "torch.set_num_threads"
_INITIALIZE = "apex.amp.initialize"
_PATCHING_LEVEL = "O1"


@attrs.frozen
class UnsynchronizedTiming:
    """Two readings with calls between them and no wait for the device.

    Attributes:
        start: the line of the first reading.
        end: the line of the second.
    """

    start: Place
    end: Place


@attrs.frozen
class TorchPatch:
    """A line that patches torch, before models that are timed later.

    Attributes:
        place: the line.
        description: what it does.
    """

    place: Place
    description: str


@attrs.frozen
class StaticFindings:
    """What the source of a script shows.

    Attributes:
        uses_cuda: whether it names CUDA.
        unsynchronized: timings without a wait for the device.
        patches: patches of torch that are not undone.
        compared_lines: lines that compare a reading, or a difference of readings, with something.
        subtracted_lines: pairs of lines whose values are subtracted, that of the first value first.
        thread_counts: numbers given to `torch.set_num_threads`; None for one that is computed.
        claims: what it says about its rows, and what it may do with their timings.
        float32_places: lines that call a row float32, and name no other precision and no ratio.
        warm_up_places: lines that call what they time a warm-up, or a first call.
        half_places: lines that call a row half precision, and name no other one and no ratio.
    """

    uses_cuda: bool = False
    unsynchronized: tuple[UnsynchronizedTiming, ...] = ()
    patches: tuple[TorchPatch, ...] = ()
    compared_lines: frozenset[int] = frozenset()
    subtracted_lines: frozenset[tuple[int, int]] = frozenset()
    thread_counts: tuple[int | None, ...] = ()
    claims: StaticClaims = NO_CLAIMS
    float32_places: frozenset[Place] = frozenset()
    half_places: frozenset[Place] = frozenset()
    warm_up_places: frozenset[Place] = frozenset()


def analyze(source: str, file: str) -> StaticFindings:
    """Analyze the source of a script.

    Args:
        source: Python source.
        file: its name, for places.

    Returns:
        What was found; nothing if the source is not valid Python.
    """
    try:
        analyzer = _Analyzer(ast.parse(source), file)
    except (SyntaxError, ValueError, RecursionError):
        return StaticFindings()
    claims = analyzer.claims()
    return StaticFindings(
        analyzer.uses_cuda(),
        tuple(sorted(set(analyzer.unsynchronized()), key=lambda timing: timing.end.line)),
        tuple(analyzer.patches()),
        analyzer.compared_lines(),
        frozenset(analyzer.subtracted_lines()),
        tuple(analyzer.thread_counts()),
        claims,
        frozenset(Place(file, line) for line in claims.float32_only_lines),
        frozenset(Place(file, line) for line in claims.half_only_lines),
        frozenset(Place(file, line) for line in claims.warm_up_lines),
    )


class _Analyzer:
    """Searches a syntax tree."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self._file = file
        self._nodes = list(ast.walk(tree))
        self._imports = dict(self._imported_names())
        self._assigned_lines: dict[str, list[int]] = {}
        for node in filter(_is_assignment, self._nodes):
            for target in node.targets:
                self._assigned_lines.setdefault(ast.unparse(target), []).append(node.lineno)
        self._calls = [node for node in self._nodes if isinstance(node, ast.Call)]

    def _imported_names(self) -> Iterator[tuple[str, str]]:
        """Pairs of an imported name and its full name."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or whole, whole
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"

    def _full_name(self, node: ast.AST) -> str:
        """The full dotted name of an expression; empty if it is not a name."""
        if isinstance(node, ast.Name):
            return self._imports.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self._full_name(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def _place(self, line: int) -> Place:
        return Place(self._file, line)

    def uses_cuda(self) -> bool:
        """Whether a string names a CUDA device, or the method `cuda` is called.

        Autocast for CUDA changes nothing in a model that is on the CPU.
        """
        settings = self._autocast_settings()
        return any(
            (isinstance(node, ast.Constant) and _CUDA_DEVICE.fullmatch(str(node.value)))
            or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "cuda")
            for node in self._nodes
            if id(node) not in settings
        )

    def _autocast_settings(self) -> set[int]:
        """Nodes of what is given to autocast, and of values of names that are given to it alone."""
        settings = {
            id(part)
            for call in self._calls
            if self._full_name(call.func).rpartition(".")[2] in _AUTOCAST
            for part in ast.walk(call)
        }
        loads = [n for n in self._nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        given = {name.id for name in loads if id(name) in settings}
        given -= {name.id for name in loads if id(name) not in settings}
        values = (
            node.value
            for node in filter(_is_assignment, self._nodes)
            if {ast.unparse(target) for target in node.targets} <= given
        )
        return settings | {id(value) for value in values}

    def claims(self) -> StaticClaims:
        """What it says about its rows."""
        return claims_of(self._nodes)

    def compared_lines(self) -> frozenset[int]:
        """Lines on which a reading, or a difference, is only compared."""
        compared = [part for node in self._nodes for part in _compared(node)]
        names = {part.id for part in compared if isinstance(part, ast.Name)}
        only_compared = {name for name in names if self._is_only(name, compared)}
        return frozenset(
            part.lineno for part in compared if _is_difference(part) or self._is_reading(part)
        ) | frozenset(
            node.lineno
            for node in self._nodes
            if isinstance(node, ast.Assign)
            if _is_difference(node.value) or self._is_reading(node.value)
            if {ast.unparse(target) for target in node.targets} <= only_compared
        )

    def subtracted_lines(self) -> Iterator[tuple[int, int]]:
        """Lines on which both sides of a subtraction got their values, the later side second."""
        for node in self._nodes:
            if _is_difference(node):
                ends, starts = self._lines_of(node.left), self._lines_of(node.right)
                yield from ((start, end) for start in starts for end in ends)

    def _lines_of(self, side: ast.expr) -> list[int]:
        """The lines that assign to a name, or that of a call."""
        if isinstance(side, ast.Call):
            return [side.lineno]
        return self._assigned_lines.get(ast.unparse(side), [])

    def _is_only(self, name: str, parts: list[ast.expr]) -> bool:
        """Whether every use of a name is one of these."""
        uses = (n for n in self._nodes if isinstance(n, ast.Name) and n.id == name)
        return all(isinstance(use.ctx, ast.Store) or use in parts for use in uses)

    def thread_counts(self) -> Iterator[int | None]:
        """What the script sets the number of torch's threads to."""
        for call in self._calls:
            if self._full_name(call.func) == _SET_THREADS:
                given = call.args[0] if call.args else None
                value = given.value if isinstance(given, ast.Constant) else None
                yield value if isinstance(value, int) else None

    def unsynchronized(self) -> Iterator[UnsynchronizedTiming]:
        """Pairs of subtracted readings with calls between them and no wait."""
        readings, compared_lines = self._named_readings(), self.compared_lines()
        for node in self._nodes:
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
                continue
            end = self._line_of_reading(node.left, node.lineno, readings)
            start = self._line_of_reading(node.right, (end or 1) - 1, readings)
            if node.lineno in compared_lines or start is None or end is None:
                continue
            between = [call for call in self._calls if start < call.lineno < end]
            if between and not may_wait(self._nodes, start, end):
                yield UnsynchronizedTiming(self._place(start), self._place(end))

    def _named_readings(self) -> dict[str, list[int]]:
        """Lines that assign a reading, by the name assigned to."""
        lines: dict[str, list[int]] = {}
        for node in self._nodes:
            if isinstance(node, ast.Assign) and self._is_reading(node.value):
                for target in node.targets:
                    lines.setdefault(ast.unparse(target), []).append(node.lineno)
        return lines

    def _is_reading(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and self._full_name(node.func) in _CLOCKS

    def _line_of_reading(
        self, node: ast.expr, before: int, readings: dict[str, list[int]]
    ) -> int | None:
        """The line of an operand's reading: its own, or the last assignment up to a line."""
        if self._is_reading(node):
            return node.lineno
        lines = [line for line in readings.get(ast.unparse(node), []) if line <= before]
        return max(lines, default=None)

    def patches(self) -> Iterator[TorchPatch]:
        """Apex O1 followed by the timing of another model, and assignments to torch's functions."""
        readings = [call.lineno for call in self._calls if self._is_reading(call)]
        last_reading = max(readings, default=0)
        for call in self._calls:
            if self._full_name(call.func) == _INITIALIZE and self._leaks(call, last_reading):
                text = "apex.amp.initialize with opt_level O1, and other models are timed after it"
                yield TorchPatch(self._place(call.lineno), text)
        targets = [name for node in self._nodes for name in self._assigned(node)]
        for name, line in targets:
            if [other for other, _ in targets].count(name) == 1 and line < last_reading:
                yield TorchPatch(self._place(line), f"{name} is replaced and not put back")

    def _assigned(self, node: ast.AST) -> Iterator[tuple[str, int]]:
        """Functions of torch that an assignment replaces."""
        if not isinstance(node, ast.Assign):
            return
        for target in node.targets:
            name = self._full_name(target)
            if isinstance(target, ast.Attribute) and name.rpartition(".")[0] in _PATCHED_MODULES:
                yield name, node.lineno

    def _leaks(self, call: ast.Call, last_reading: int) -> bool:
        """Whether this call of Apex uses O1 and another model is timed after it."""
        given = [keyword.value for keyword in call.keywords if keyword.arg == "opt_level"]
        level = given[0] if given else ast.Constant(_PATCHING_LEVEL)  # Apex's default
        loop = self._loop_over(level)
        if loop is None:
            is_o1 = isinstance(level, ast.Constant) and level.value == _PATCHING_LEVEL
            # the first two readings after the call time its own model
            later = sum(self._is_reading(c) and c.lineno > call.lineno for c in self._calls)
            return is_o1 and later > 2
        levels = [value.value for value in _elements(loop) if isinstance(value, ast.Constant)]
        if _PATCHING_LEVEL not in levels:
            return False
        return levels[-1] != _PATCHING_LEVEL or last_reading > (loop.end_lineno or loop.lineno)

    def _loop_over(self, level: ast.expr) -> ast.For | None:
        """The loop whose variable is the level."""
        if not isinstance(level, ast.Name):
            return None
        loops = (node for node in self._nodes if isinstance(node, ast.For))
        return next((loop for loop in loops if ast.unparse(loop.target) == level.id), None)


def _compared(node: ast.AST) -> list[ast.expr]:
    """All parts of the sides of a comparison."""
    sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
    return [part for side in sides for part in ast.walk(side) if isinstance(part, ast.expr)]


def _is_assignment(node: ast.AST) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign)


def _is_difference(node: ast.AST) -> TypeGuard[ast.BinOp]:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)


def _elements(loop: ast.For) -> list[ast.expr]:
    return loop.iter.elts if isinstance(loop.iter, (ast.List, ast.Tuple)) else []
