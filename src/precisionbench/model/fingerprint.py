"""What identifies a model and its inputs, so that a later run knows whether they changed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import pickle
import secrets
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.torchtools.tensors import map_tensors, walk

_DIGITS = 16
_SAMPLES = 1 << 16  # elements of each tensor that are read one by one


def architecture(model: nn.Module) -> str:
    """Identifies the names, shapes and dtypes of the model's tensors, and the code of its modules.

    Args:
        model: in any mode, on any device.
    """
    return _digest(itertools.chain(_shapes(model), _code(model)))


def values(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Identifies the values of tensors.

    Of a large tensor evenly spaced elements are read, and the sum of all.

    Args:
        tensors: with their names.
    """
    return _digest(part for name, tensor in tensors for part in (name.encode(), *_bytes(tensor)))


def weights(model: nn.Module) -> str:
    """Identifies the values of the model's parameters and buffers.

    Args:
        model: in any mode, on any device.
    """
    return values(itertools.chain(model.named_parameters(), model.named_buffers()))


def code(function: Callable[..., Any]) -> str:
    """Identifies what a function does: its code, and that of functions of its module that it calls.

    Args:
        function: any callable; of one without Python code, its class and what it holds.

    Returns:
        A text; another one each time where what it holds cannot be pickled.
    """
    return _digest(_parts_of(function, set()))


def _parts_of(function: Any, seen: set[int]) -> Iterator[bytes]:
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, types.FunctionType):
        yield from _parts_of_function(function, seen)
    elif isinstance(function, functools.partial):
        yield from _parts_of(function.func, seen)
        yield _state([function.args, function.keywords]).encode()
    elif isinstance(function, types.MethodType):
        yield from _parts_of(function.__func__, seen)
        yield _state(function.__self__).encode()
    else:
        yield f"{type(function).__qualname__} {_state(function)}".encode()
        if isinstance(call := type(function).__call__, types.FunctionType):
            yield from _parts_of(call, seen)


def _parts_of_function(function: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    yield from _parts_of_code(function.__code__)
    known = inspect.getclosurevars(function)
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for value in (*held, *known.nonlocals.values()):
        if isinstance(value, types.FunctionType):
            yield from _parts_of(value, seen)
        else:
            yield _state(value).encode()
    for value in known.globals.values():
        if getattr(value, "__module__", None) == function.__module__ and callable(value):
            yield from _parts_of(value, seen)
        elif isinstance(value, (bool, int, float, str, tuple)):
            yield repr(value).encode()


def _parts_of_code(found: types.CodeType) -> Iterator[bytes]:
    yield found.co_code
    yield repr([found.co_names, found.co_varnames]).encode()
    for constant in found.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts_of_code(constant)
        else:
            is_set = isinstance(constant, frozenset)  # in another order in each process
            yield repr(sorted(map(repr, constant)) if is_set else constant).encode()


def _state(value: Any) -> str:
    """A text of what an object holds; another one each time where it cannot be pickled."""
    if isinstance(value, nn.Module):
        return architecture(value) + weights(value)
    if isinstance(value, (torch.Tensor, tuple, list, Mapping)):  # tensors pickle in other ways
        return batch(value)
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except FOREIGN_ERRORS:
        return secrets.token_hex()


def batch(given: Any) -> str:
    """Identifies a batch of a user's data: its tensors, and everything else in it.

    Args:
        given: any structure.
    """
    others: list[str] = []
    map_tensors(lambda tensor: tensor, given, lambda one: others.append(_state(one)))
    return _digest([values(walk(given, objects=True)).encode(), repr(others).encode()])


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:_DIGITS]


def _shapes(model: nn.Module) -> Iterator[bytes]:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()


def _code(model: nn.Module) -> Iterator[bytes]:
    """The class of each module with its attributes in `repr`, and the source of each class once."""
    for name, module in model.named_modules():
        yield f"{name} {type(module).__qualname__} {module.extra_repr()}".encode()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        try:
            yield inspect.getsource(kind).encode()
        except FOREIGN_ERRORS:  # a class without a file
            yield kind.__qualname__.encode()


def _bytes(tensor: torch.Tensor) -> Iterator[bytes]:
    tensor = tensor.detach()
    yield f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    if tensor.layout != torch.strided or not tensor.numel():
        return
    flat = tensor.reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    sample = flat[::step].cpu().contiguous()
    yield sample.view(torch.uint8).numpy().tobytes()
    if step > 1 and not tensor.is_complex():
        yield str(float(flat.sum(dtype=torch.float64))).encode()
