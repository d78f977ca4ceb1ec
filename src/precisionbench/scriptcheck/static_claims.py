"""What a script's source says about its rows, and what it may do with their timings."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from precisionbench.scriptcheck.row_labels import (
    FLOAT32,
    HALF,
    NOT_FLOAT32_ALONE,
    NOT_HALF_ALONE,
)
from precisionbench.scriptcheck.static_waits import imports_unknown_code, words

# Calls whose strings name a dtype or a setting, and no row.
_SETTING = re.compile(r"to|type|astype|as_?array|view|getattr|setattr|set_\w+")
# What leaves slow first timings out of a result, or gives them no weight.
_DROPPING = re.compile(
    r"(nan)?(median|percentile|quantile|min)s?|median_\w+|a?min|(arg)?sort(ed)?|pop(left)?|remove"
    r"|islice|clear|trim_mean|mode|describe|deque|tail|\w*plot|hist(ogram)?|compress|dropna|query"
)
# What lets a model compute in half inside: in its own class, and anywhere.
_CASTS = re.compile(r"16|half|autocast|amp(?![a-z])|^to$|^type$|dtype")
_CASTS_ANYWHERE = re.compile(
    r"quant|mixedprecision|matmul_precision|fp32_precision|allow_\w+|forward_(pre_)?hook"
    r"|^prepare($|_(fx|qat|pt2e))|^library$|tensorrt|onednn|mkldnn|cpp_extension"
    r"|from_pretrained|^load(_model)?$"
)
_WARM_UP = re.compile(r"warm|burn.?in|dry.?run")
_FIRST = re.compile(
    r"warm.?up|warming|burn.?in|dry.?run"
    r"|(?<![a-z])(cold|first.?(call|run|iter\w*|pass|batch|inference|step))(?![a-z])"
)
_AFTER_FIRST = re.compile(
    r"(?<![a-z])(after|post|no|not|non|with|without|excl\w*|skip\w*|ignor\w*|pre)(?![a-z])"
)
_AVERAGING = re.compile(r"f?mean|nanmean|average|(nan)?sum")
_TIMINGS = re.compile(r"time|clock|elapsed|laten|durat|seconds|(?<![a-z])(dt|ms)(?![a-z])")
_CLOCK = re.compile(r"(perf_counter|time|monotonic)(_ns)?|default_timer|now")
_DEVICE = re.compile(r"cuda|gpu|device", re.IGNORECASE)


@attrs.frozen
class StaticClaims:
    """What the source says about rows and their timings.

    Attributes:
        float32_lines: lines that call a row float32.
        averages_all: whether timings are averaged, and nothing can leave the first ones out.
        float32_only_lines: lines that call a row float32, and name no other precision and no ratio.
        names_warm_up: whether a name or a label is about a warm-up.
        half_only_lines: lines that call a row half precision, and name no other one and no ratio.
        warm_up_lines: lines that call what they time a warm-up, or a first call.
        may_cast: whether models may compute in half inside, which no call of them shows.
    """

    float32_lines: tuple[int, ...] = ()
    averages_all: bool = False
    float32_only_lines: tuple[int, ...] = ()
    names_warm_up: bool = False
    half_only_lines: tuple[int, ...] = ()
    warm_up_lines: tuple[int, ...] = ()
    may_cast: bool = False


NO_CLAIMS = StaticClaims()


def claims_of(nodes: Sequence[ast.AST]) -> StaticClaims:
    """What a script says about its rows.

    Args:
        nodes: all nodes of its syntax tree.
    """
    lines = {line for line, text in _labels(nodes) if FLOAT32.search(text.lower())}
    drops = imports_unknown_code(nodes) or _times_apart(nodes) or any(map(_may_drop, nodes))
    alone = lines - set(_lines_with(NOT_FLOAT32_ALONE, nodes))
    half = {line for line, text in _labels(nodes) if HALF.search(text.lower())}
    warm_up = any(_WARM_UP.search(text.lower()) for _, text in _labels(nodes))
    return StaticClaims(
        tuple(sorted(lines)),
        _averages(nodes) and not drops,
        tuple(sorted(alone)),
        warm_up,
        tuple(sorted(half - set(_lines_with(NOT_HALF_ALONE, nodes)))),
        tuple(sorted(set(_warm_up_lines(nodes)))),
        imports_unknown_code(nodes) or any(map(_may_cast, nodes)),
    )


def _warm_up_lines(nodes: Sequence[ast.AST]) -> Iterator[int]:
    """Lines with a label that names a warm-up, or that call a function of such a name."""
    options = {(n.value.lineno, n.arg) for n in nodes if isinstance(n, ast.keyword)}
    calls = [(n.lineno, _name(n.func)) for n in nodes if isinstance(n, ast.Call)]
    for line, text in (*_labels(nodes), *calls):
        low = text.lower().replace("_", " ")
        is_option = (line, text.replace(" ", "_")) in options
        if not is_option and _FIRST.search(low) and not _AFTER_FIRST.search(low):
            yield line


def _may_cast(node: ast.AST) -> bool:
    """Whether a node may let a model of float32 weights and outputs compute in half inside."""
    if isinstance(node, ast.ClassDef):
        return any(_CASTS.search(word.lower()) for n in ast.walk(node) for word in words(n))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr == "forward"
    return any(_CASTS_ANYWHERE.search(word.lower()) for word in words(node))


def _lines_with(pattern: re.Pattern[str], nodes: Sequence[ast.AST]) -> Iterator[int]:
    """Lines on which a name or a string matches."""
    for node in nodes:
        if any(pattern.search(word.lower()) for word in words(node)):
            yield getattr(node, "lineno", 0)


def _labels(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Strings and names that may be the label of a row, each with its line."""
    ignored = {id(part) for node in nodes for part in _settings(node)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in ignored:
                yield node.lineno, node.value
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id.replace("_", " ")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name.replace("_", " ")
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, "" if id(node) in ignored else node.arg.replace("_", " ")


def _settings(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that name a dtype or a setting of torch, and docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    elif isinstance(node, ast.Call) and _SETTING.fullmatch(_name(node.func)):
        yield from (part for argument in node.args for part in ast.walk(argument))
    elif isinstance(node, ast.keyword) and "dtype" in (node.arg or ""):
        yield from ast.walk(node.value)


def _name(node: ast.AST) -> str:
    """The last part of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _averages(nodes: Sequence[ast.AST]) -> bool:
    """Whether timings are summed or averaged."""
    holders = _timing_names(nodes)

    def holds_timings(node: ast.AST) -> bool:
        return bool(_TIMINGS.search(ast.unparse(node))) or any(
            isinstance(part, ast.Name) and part.id in holders for part in ast.walk(node)
        )

    return any(
        holds_timings(node)
        for node in nodes
        if (isinstance(node, ast.Call) and _AVERAGING.fullmatch(_name(node.func)))
        or (isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add))
    )


def _timing_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Names of differences of readings, and of lists that these are added to."""
    readings = {
        name
        for target, value in _stored(nodes)
        if any(map(_reads_clock, ast.walk(value)))
        for name in target
    }
    holders: set[str] = set()
    for _ in range(2):  # a list of names that are assigned further down
        for target, value in _stored(nodes):
            names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
            is_difference = any(
                isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub)
                for part in ast.walk(value)
            )
            reads = any(map(_reads_clock, ast.walk(value))) or bool(names & readings)
            if (is_difference and reads) or names & holders:
                holders |= target
    return holders


def _stored(nodes: Sequence[ast.AST]) -> Iterator[tuple[set[str], ast.expr]]:
    """Names, each with a value that is assigned to them or appended."""
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = (part for target in targets for part in ast.walk(target))
            yield {part.id for part in parts if isinstance(part, ast.Name)}, node.value
        elif isinstance(node, ast.Call) and _name(node.func) == "append" and node.args:
            owner = getattr(node.func, "value", None)
            yield {owner.id} if isinstance(owner, ast.Name) else set(), node.args[0]


def _times_apart(nodes: Sequence[ast.AST]) -> bool:
    """Whether a function that reads a clock is called on several lines: results apart."""
    called = Counter(_name(node.func) for node in nodes if isinstance(node, ast.Call))
    return any(
        called[node.name] > 1 and any(map(_reads_clock, ast.walk(node)))
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def _reads_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(_CLOCK.fullmatch(_name(node.func)))


def _is_about_device(test: ast.expr) -> bool:
    return bool(_DEVICE.search(ast.unparse(test)))


def _collects(node: ast.AST) -> bool:
    """Whether a node may add a timing to others."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Subscript) for target in node.targets)
    return isinstance(node, (ast.AugAssign, ast.Yield)) or (
        isinstance(node, ast.Call) and _name(node.func) in ("append", "extend", "add", "update")
    )


def _may_drop(node: ast.AST) -> bool:
    """Whether a node may leave timings out: a slice, a condition, or a robust statistic."""
    if isinstance(node, ast.Slice):
        return node.lower is not None
    if isinstance(node, ast.If):
        return any(_collects(part) for part in ast.walk(node)) and not _is_about_device(node.test)
    if isinstance(node, ast.IfExp):
        return bool(_TIMINGS.search(ast.unparse(node))) and not _is_about_device(node.test)
    if isinstance(node, ast.comprehension):
        return bool(node.ifs)
    if isinstance(node, (ast.Delete, ast.Continue)):
        return True
    if not isinstance(node, ast.Call):
        return False
    if _name(node.func) == "reset":  # of a meter; most meters also call their own when made
        return _name(getattr(node.func, "value", node)) != "self"
    return bool(_DROPPING.fullmatch(_name(node.func)))
