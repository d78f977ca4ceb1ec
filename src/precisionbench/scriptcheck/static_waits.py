"""Decides from a script's source whether the device may be waited for between two lines.

Where a run used no GPU, only the source can show that the GPU's path never waits. A wait is easy
to overlook in text, so any doubt counts as a wait.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence

# Text that waits for the device or times on it, wherever it is: in a helper, a decorator, or in the
# branch that a run without a GPU does not take.
_WAITS_ANYWHERE = re.compile(
    r"synchroni[sz]e|LAUNCH_BLOCKING|elapsed_time|do_bench|cudart|cupy|profile|\bEvent\b"
    r"|utils\.benchmark|\bTimer\b"
)
_FETCHES = re.compile(
    r"item|cpu|numpy|tolist|nonzero|unique|masked_select|equal|(all|is)close|assert_(all)?close"
    r"|as_?array|save|generate|float|int|bool|list|tuple|str|repr|format|any|all|sum|max|min"
    r"|sorted|wait"
)
_KNOWN_LIBRARIES = frozenset(
    {"torch", "torchvision", "torchaudio", "numpy", "scipy", "pandas", "matplotlib", "tqdm"}
    | {"PIL", "cv2", "transformers", "diffusers", "timm", "apex", "einops", "yaml", "tabulate"}
)
_DEVICE_BRANCH = re.compile(r"cuda|gpu|device", re.IGNORECASE)


def may_wait(nodes: Sequence[ast.AST], start: int, end: int) -> bool:
    """Whether the device may be waited for between two lines.

    Args:
        nodes: all nodes of the syntax tree.
        start: the line of the first reading of a clock.
        end: the line of the second.
    """
    return (
        _waits_anywhere(nodes)
        or imports_unknown_code(nodes)
        or _is_device_branch(nodes, start, end)
        or _fetches(nodes, _between(nodes, start, end))
    )


def _waits_anywhere(nodes: Sequence[ast.AST]) -> bool:
    return any(_WAITS_ANYWHERE.search(word) for node in nodes for word in words(node))


def words(node: ast.AST) -> Iterator[str]:
    """Names and strings of a node itself.

    Args:
        node: of a syntax tree.
    """
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_unknown_code(nodes: Sequence[ast.AST]) -> bool:
    """Whether a script imports modules of its author's, or of libraries that are not known here.

    Args:
        nodes: all nodes of its syntax tree.
    """
    modules = {name for node in nodes for name in _imported(node)}
    return not modules <= sys.stdlib_module_names | _KNOWN_LIBRARIES


def _imported(node: ast.AST) -> Iterator[str]:
    """Top-level modules that a node imports; empty for a relative import."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield "" if node.level else (node.module or "").partition(".")[0]


def _is_device_branch(nodes: Sequence[ast.AST], start: int, end: int) -> bool:
    """Whether both lines are in a branch that depends on the device."""
    branches = (node for node in nodes if isinstance(node, ast.If))
    return any(
        branch.lineno <= start <= end <= (branch.end_lineno or 0)
        and _DEVICE_BRANCH.search(ast.unparse(branch.test))
        for branch in branches
    )


def _between(nodes: Sequence[ast.AST], start: int, end: int) -> list[ast.AST]:
    return [node for node in nodes if start < getattr(node, "lineno", 0) < end]


def _fetches(nodes: Sequence[ast.AST], part: Sequence[ast.AST]) -> bool:
    """Whether a part of the script, or a function that it calls, may read a tensor's values."""
    functions = {n.name: n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    names: set[str] = set()
    todo = list(part)
    while todo:
        node, name = (last := todo.pop()), _called(last)
        is_own = name in functions and isinstance(getattr(node, "func", None), ast.Name)
        if not is_own and _may_fetch(node):  # what a function of the script does, it says itself
            return True
        if name in functions and name not in names:
            names.add(name)
            todo += ast.walk(functions[name])
    return False


def _may_fetch(node: ast.AST) -> bool:
    if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert, ast.FormattedValue)):
        return not isinstance(getattr(node, "test", None), ast.Constant)
    name = _called(node)
    if not isinstance(node, ast.Call) or not name:
        return False
    constant = all(isinstance(argument, ast.Constant) for argument in node.args)
    if name == "print":
        return not constant
    return bool(_FETCHES.fullmatch(name)) or (name == "to" and "cpu" in ast.unparse(node))


def _called(node: ast.AST) -> str:
    """The last part of the name that a call calls."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
