"""Docstrings of public names describe arguments, results and errors."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import precisionbench as pb
from precisionbench.backends import discovery

pytestmark = pytest.mark.uncounted

MODULES = (
    "precisionbench.backends",
    "precisionbench.diagnosis.findings",
    "precisionbench.diagnosis.gap.ledger",
    "precisionbench.errors",
    "precisionbench.workflows.experiments",
    "precisionbench.published",
    "precisionbench.results",
)
NAMES = (
    "precisionbench.backends.base.cast_model",
    "precisionbench.backends.base.require_cuda",
    "precisionbench.backends.base.unrecorded",
    "precisionbench.backends.discovery.BackendInfo",
    "precisionbench.backends.discovery.make",
    "precisionbench.analysis.run_diff.Difference",
    "precisionbench.analysis.run_diff.RowChange",
    "precisionbench.diagnosis.best_row.BestRow",
    "precisionbench.display.Records",
    "precisionbench.doctor.checks.MachineCheck",
    "precisionbench.doctor.examine.Examination",
    "precisionbench.analysis.data_quality.Observation",
    "precisionbench.report.run_diff.RunDiff",
    "precisionbench.rules.statement.Statement",
)
# An override that says what is its own, and leaves the rest to the method that it overrides.
SEE_BASE = re.compile(r"see `Backend\.\w+`")
BACKENDS = (
    "eager",
    "half",
    "autocast",
    "compile",
    "apex-amp",
    "torch2trt",
    "onnxruntime",
    "openvino",
)


def public_objects() -> dict[str, Any]:
    """The functions and classes in the reference documentation, by name."""
    found = {f"precisionbench.{name}": getattr(pb, name) for name in pb.__all__}
    for path in MODULES:
        module = importlib.import_module(path)
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == path
        ]
        found |= {f"{path}.{name}": getattr(module, name) for name in names}
    for path, _, name in (full.rpartition(".") for full in NAMES):
        found[f"{path}.{name}"] = getattr(importlib.import_module(path), name)
    found |= {f"backend {name}": discovery.load(name) for name in BACKENDS}
    return {name: value for name, value in found.items() if _is_documented(value)}


def _is_documented(value: Any) -> bool:
    """Functions of the errors module are not public."""
    if getattr(value, "__module__", "") == "precisionbench.errors":
        return isinstance(value, type)
    return callable(value)


def with_members() -> Iterator[tuple[str, Any]]:
    """The public objects, and the public methods and properties of the classes."""
    for name, value in public_objects().items():
        yield name, value
        if not isinstance(value, type):
            continue
        for member, method in own_members(value).items():
            if not member.startswith("_") and isinstance(method, (property, *METHODS)):
                yield f"{name}.{member}", method


def own_members(value: type) -> dict[str, Any]:
    """The members of a class and of its bases in the library."""
    bases = [base for base in value.__mro__ if base.__module__.startswith("precisionbench.")]
    return {name: member for base in reversed(bases) for name, member in vars(base).items()}


METHODS = (types.FunctionType, classmethod, staticmethod, functools.cached_property)
OBJECTS = dict(with_members())


def test_the_whole_public_library_is_checked():
    assert {"precisionbench.compare", "precisionbench.errors.SpecError"} <= OBJECTS.keys()
    assert "precisionbench.Comparison.save" in OBJECTS
    assert len(OBJECTS) > 100


@pytest.mark.parametrize("name", OBJECTS)
def test_public_docstrings_are_complete(name):
    assert list(complaints(OBJECTS[name])) == []


def complaints(value: Any) -> Iterator[str]:
    """What a docstring lacks."""
    text = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    if not text or text.startswith(f"{getattr(value, '__name__', '?')}("):
        yield "has no docstring"
    elif isinstance(value, type):
        yield from _unnamed(fields(value), text, "Attributes", "Args")
    elif inspect.isfunction(value) and not SEE_BASE.search(text):
        yield from of_function(inspect.unwrap(value), text)


def fields(kind: type) -> list[str]:
    """The own fields of a class, or the arguments of its own `__init__`."""
    if attrs.has(kind):
        return [field.name for field in attrs.fields(kind) if not field.inherited]
    if "__init__" in vars(kind):
        return [name for name in inspect.signature(kind).parameters if not name.startswith("_")]
    return []


def of_function(function: Any, text: str) -> Iterator[str]:
    signature = inspect.signature(function)
    parameters = [name for name in signature.parameters if name != "self"]
    yield from _unnamed(parameters, text, "Args")
    gives = signature.return_annotation not in ("None", None)
    if parameters and gives and "Returns:\n" not in text:
        yield "says nothing of what it returns"
    yield from _unnamed(raised(function), text, "Raises")


def raised(function: Any) -> list[str]:
    """The errors that a function raises itself, by their names in its code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = [call.func.id for call in calls if isinstance(call, ast.Call) and _named(call)]
    return sorted({name for name in names if name.endswith(("Error", "Interrupt"))})


def _named(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name)


def _unnamed(names: list[str], text: str, *sections: str) -> Iterator[str]:
    said = "".join(_section(text, section) for section in sections)
    for name in names:
        if not re.search(rf"^    \*{{0,2}}{re.escape(name)}: \S", said, re.MULTILINE):
            yield f"{' or '.join(sections)} says nothing of {name}"


def _section(text: str, title: str) -> str:
    match = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    return match[1] if match else ""


def careless(size: int, name: str) -> int:
    """Add them up.

    Args:
        size: how many.
    """
    if not name:
        raise ValueError("no name")
    return size


def test_complaints_name_what_a_docstring_lacks():
    assert list(complaints(careless)) == [
        "Args says nothing of name",
        "says nothing of what it returns",
        "Raises says nothing of ValueError",
    ]
    assert list(complaints(lambda: None)) == ["has no docstring"]
