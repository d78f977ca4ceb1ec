"""What a piece of source calls and reads: pure functions of a syntax tree.

Work outside of modules is found in this way. A hook on each operation of torch would take about as
long as a small operation itself, and would change what torch.compile does.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence

import attrs

_OPERATORS = {
    ast.MatMult: "matmul",
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp)


@attrs.frozen
class Use:
    """A call, or an operator between two values.

    Attributes:
        name: dotted name of the function, such as `F.linear`, or of an operator, such as `matmul`;
            empty if the function is an expression.
        method: the method's name if the function is an attribute of something; else empty.
        operands: dotted names of the values that it is given, in order; empty for an expression.
        is_operator: whether it is an operator.
        ranges: for each loop around it what `range` is given, a number or a dotted name, or the
            name of what it runs over; None for any other loop.
    """

    name: str
    method: str
    operands: tuple[str, ...]
    is_operator: bool
    ranges: tuple[int | str | None, ...]


@attrs.frozen
class CodeUse:
    """What a piece of source uses.

    Attributes:
        uses: calls and operators.
        stored: names that it assigns.
    """

    uses: tuple[Use, ...] = ()
    stored: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=512)
def code_use(source: str, first: int, last: int) -> CodeUse:
    """What some lines use.

    Args:
        source: of the whole file.
        first: the first line.
        last: the last line.
    """
    tree = _parsed(source)
    if tree is None:
        return CodeUse()
    inside = [n for n in ast.walk(tree) if first <= getattr(n, "lineno", 0) <= last]
    loops = [node for node in inside if isinstance(node, _LOOPS)]
    uses = [use for node in inside if (use := _use(node, loops)) is not None]
    return CodeUse(tuple(uses), frozenset(_stored(inside)))


@functools.lru_cache(maxsize=512)
def with_body(source: str, line: int) -> tuple[int, int] | None:
    """The first and last line of the body of the `with` statement on a line, if there is one.

    Args:
        source: of the whole file.
        line: a line of the statement.
    """
    tree = _parsed(source)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.With) and node.lineno <= line <= node.body[0].lineno:
            return node.body[0].lineno, node.body[-1].end_lineno or node.body[-1].lineno
    return None


@functools.lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _use(node: ast.AST, loops: Sequence[ast.AST]) -> Use | None:
    """The use that a node is, if it is one."""
    ranges = tuple(_range(loop) for loop in loops if _contains(loop, node))
    if isinstance(node, ast.Call):
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        operands = tuple(_dotted(_value(argument)) for argument in node.args)
        return Use(_dotted(node.func), method, operands, False, ranges)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        operands = _dotted(node.left), _dotted(node.right)
        return Use(_OPERATORS[type(node.op)], "", operands, True, ranges)
    return None


def _value(argument: ast.expr) -> ast.expr:
    return argument.value if isinstance(argument, ast.Starred) else argument


def _dotted(node: ast.AST) -> str:
    """The dotted name of an expression; empty if it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _contains(loop: ast.AST, node: ast.AST) -> bool:
    """Whether a node is repeated by a loop; what the loop runs over is not."""
    parts = loop.body if isinstance(loop, (ast.For, ast.While)) else [loop]
    return loop is not node and any(other is node for part in parts for other in ast.walk(part))


def _range(loop: ast.AST) -> int | str | None:
    iterated = loop.iter if isinstance(loop, ast.For) else None
    if isinstance(loop, (ast.ListComp, ast.GeneratorExp)):
        iterated = loop.generators[0].iter
    if isinstance(iterated, ast.Call):
        is_range = _dotted(iterated.func) == "range" and len(iterated.args) == 1
        iterated = iterated.args[0] if is_range else None
    if isinstance(iterated, ast.Constant):
        return iterated.value if isinstance(iterated.value, int) else None
    return (_dotted(iterated) or None) if iterated is not None else None


def _stored(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
