"""What a piece of source calls and reads: pure functions of a syntax tree.

Work outside of modules is found in this way. A hook on each operation of torch would take about as
long as a small operation itself, and would change what torch.compile does.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

_OPERATORS = {
    ast.MatMult: "matmul",
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}
_NUMBERS = ("item", "size", "dim", "numel", "tolist", "numpy")  # methods that give no tensor
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp)


@attrs.frozen
class Use:
    """A call, or an operator between two values.

    Attributes:
        name: dotted name of the function, such as `F.linear`, or of an operator, such as `matmul`;
            empty if the function is an expression.
        method: the method's name if the function is an attribute of something; else empty.
        operands: dotted names of the values that it is given, in order, with a star before one
            that is unpacked; empty for an expression.
        keywords: how many of these are given by keyword, the last ones.
        is_operator: whether it is an operator.
        ranges: for each loop around it what `range` is given, a number or a dotted name, or the
            name of what it runs over; None for any other loop.
    """

    name: str
    method: str
    operands: tuple[str, ...]
    keywords: int
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
    return _used([n for n in ast.walk(tree) if first <= getattr(n, "lineno", 0) <= last])


@functools.lru_cache(maxsize=512)
def function_use(source: str, name: str, line: int) -> CodeUse:
    """What the body of a function uses.

    Args:
        source: of the whole file.
        name: of the function; `<lambda>` for all lambdas on the line.
        line: its first line, that of the first decorator if it has any.
    """
    tree = _parsed(source)
    kinds = ast.Lambda if name == "<lambda>" else (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [n for n in ast.walk(tree) if isinstance(n, kinds)] if tree else []
    inside = [
        node
        for function in functions
        if _first_line(function) == line and getattr(function, "name", name) == name
        for part in _body(function)
        for node in ast.walk(part)
    ]
    return _used(inside)


def _first_line(function: Any) -> int:
    lines = [function.lineno, *(part.lineno for part in getattr(function, "decorator_list", ()))]
    return int(min(lines))


def _body(function: Any) -> list[ast.AST]:
    return [function.body] if isinstance(function, ast.Lambda) else function.body


def _used(inside: list[ast.AST]) -> CodeUse:
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
        if isinstance(node, ast.With):
            first = node.body[0].lineno
            if node.lineno <= line < max(first, node.lineno + 1):
                return first, node.body[-1].end_lineno or node.body[-1].lineno
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
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        operands = tuple(_operand(argument) for argument in given)
        return Use(_dotted(node.func), method, operands, len(node.keywords), False, ranges)
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _OPERATORS:
        left, right = (
            (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        )
        operands = _operand(left), _operand(right)
        return Use(_OPERATORS[type(node.op)], "", operands, 0, True, ranges)
    return None


def _operand(node: ast.expr) -> str:
    """The name of a value, or of that of which it is a method's result or a part, as in `x.t()`."""
    if isinstance(node, ast.Starred):
        return f"*{_dotted(node.value)}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return "" if node.func.attr in _NUMBERS else _operand(node.func.value)
    if isinstance(node, ast.Subscript):
        return _operand(node.value)
    return _dotted(node)


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
