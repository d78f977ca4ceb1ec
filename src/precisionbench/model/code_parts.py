"""What identifies the code of functions and classes, and which values a function can read."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator
from typing import Any

from precisionbench.errors import FOREIGN_ERRORS

# The version of Python and of torch is known elsewhere, so that names are enough for their code.
_KNOWN_BY_VERSION = {"torch", "precisionbench", "builtins", *sys.stdlib_module_names} - {"__main__"}
_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_INSTALLED = ("site-packages", "dist-packages")


def is_known_by_version(module: str) -> bool:
    """Whether code belongs to torch, to Python or to this package.

    Args:
        module: name of the module that defines it.
    """
    return module.partition(".")[0] in _KNOWN_BY_VERSION


@functools.lru_cache(maxsize=4096)
def is_users(module: str) -> bool:
    """Whether code is the user's own, and not of an installed package.

    Args:
        module: name of the module that defines it; one that was never imported is the user's.
    """
    if is_known_by_version(module):
        return False
    found = sys.modules.get(module.partition(".")[0])
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    return not any(name in str(place) for place in places for name in _INSTALLED)


def module_of(function: types.FunctionType) -> str:
    """Name of the module in which a function was compiled; `functools.wraps` does not change it.

    Args:
        function: any.
    """
    return str(function.__globals__.get("__name__", ""))


def code_of(function: types.FunctionType) -> Iterator[bytes]:
    """What identifies the code of a function: its source, or its bytecode where there is none.

    Source is the same for each version of Python. Two lambdas may share a line of it.

    Args:
        function: any.
    """
    code = function.__code__
    source = "" if code.co_name.startswith("<") or code.co_filename.startswith("<") else _text(code)
    if code.co_name in source.partition(":")[0] or f"def {code.co_name}" in source:
        yield textwrap.dedent(source).encode(errors="backslashreplace")
    else:
        yield from _bytecode(code)


def _text(code: types.CodeType) -> str:
    try:
        return inspect.getsource(code)
    except FOREIGN_ERRORS:  # a function without a file
        return ""


def _bytecode(found: types.CodeType) -> Iterator[bytes]:
    yield found.co_code
    yield repr([found.co_names, found.co_varnames, found.co_freevars]).encode()
    for constant in found.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _bytecode(constant)
        else:
            is_set = isinstance(constant, frozenset)  # in another order in each process
            yield repr(sorted(map(repr, constant)) if is_set else constant).encode()


def read_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function can read besides its arguments, with names: globals, cells and defaults.

    Of the user's modules these are the attributes that the function names.

    Args:
        function: any.
    """
    names = dict.fromkeys(_names(function.__code__))
    modules: dict[str, types.ModuleType] = {}
    for name, value in _directly_read(function, _globals_in(function.__code__)):
        if isinstance(value, types.ModuleType):
            modules[value.__name__] = value
        else:
            yield name, value
    yield from _of_modules(modules, names)


def _directly_read(function: types.FunctionType, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name in dict.fromkeys(names):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    yield from cells_of(function)
    for place, value in enumerate(function.__defaults__ or ()):
        yield f"default {place}", value
    yield from (function.__kwdefaults__ or {}).items()
    yield from ((name, one) for name, one in vars(function).items() if name != "__wrapped__")


def cells_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables of outer functions that a function holds.

    Args:
        function: any.
    """
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _globals_in(code: types.CodeType) -> Iterator[str]:
    """Names of globals in a function, and in the functions within it; not those of attributes."""
    for one in _codes(code):
        loads = (step for step in dis.get_instructions(one) if step.opname in _LOADS_GLOBAL)
        yield from (step.argval for step in loads)


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function, and in the functions within it."""
    for one in _codes(code):
        yield from one.co_names


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _of_modules(
    modules: dict[str, types.ModuleType], names: dict[str, None]
) -> Iterator[tuple[str, Any]]:
    """The attributes of modules that a function names, with those of modules within modules."""
    seen: set[str] = set()
    while modules:
        name, module = modules.popitem()
        if name in seen:
            continue
        seen.add(name)
        if not is_users(name):
            yield name, name  # the same name may stand for another module
            continue
        for attribute in names:
            value = vars(module).get(attribute)
            if isinstance(value, types.ModuleType):
                modules[value.__name__] = value
            elif attribute in vars(module):
                yield f"{attribute} of {name}", value
