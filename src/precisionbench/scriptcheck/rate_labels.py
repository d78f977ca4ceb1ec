"""What a line of a script calls the rate that it shows: pure functions of source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from precisionbench.scriptcheck.static_waits import words

_PER_SECOND = r"\s?(/|per|p)\s?s(ec(ond)?)?s?(?![a-z])"
_ITEMS = re.compile(
    r"(?<![a-z])(images?|imgs?|pics?|pictures?|samples?|examples?|sentences?)"
    + _PER_SECOND
    + r"|(?<![a-z])fps(?![a-z])"
)
# A statement with one of these shows a rate of something else, perhaps beside that of the items.
_OTHERS = re.compile(
    r"(?<![a-z])(it|iters?|iterations?|batch(es)?|bs|calls?|steps?|runs?|loops?|forwards?|passes"
    r"|req(uest)?s?|quer(y|ies)|q|tok(en)?s?|flops?)" + _PER_SECOND + r"|qps|rps|flop"
)
# Names in a numerator by which it counts items already.
_COUNTS_ITEMS = re.compile(
    r"batch|(?<![a-z])bsz?(?![a-z])|size|ima?ge?|sample|example|item|total|pic"
)


def shows_items(source: str, line: int) -> bool:
    """Whether the statement on a line calls a rate items per second, and shows no other rate.

    Args:
        source: of the whole file.
        line: of the statement.
    """
    texts = [text.lower().replace("_", " ") for text in _words(source, line)]
    return any(map(_ITEMS.search, texts)) and not any(map(_OTHERS.search, texts))


def counts_items(source: str, line: int) -> bool:
    """Whether the arithmetic of the statement on a line names items or a batch.

    Args:
        source: of the whole file.
        line: of the statement.
    """
    parts = (n for n in _nodes(source, line) if isinstance(n, ast.BinOp))
    names = (word for part in parts for node in ast.walk(part) for word in words(node))
    return any(_COUNTS_ITEMS.search(name.lower()) for name in names)


def _words(source: str, line: int) -> Iterator[str]:
    for node in _nodes(source, line):
        yield from words(node)


@functools.lru_cache(maxsize=256)
def _nodes(source: str, line: int) -> tuple[ast.AST, ...]:
    """All nodes of the innermost statement on a line, or of several that begin there."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    first = max((node.lineno for node in around), default=0)
    return tuple(part for node in around if node.lineno == first for part in ast.walk(node))
