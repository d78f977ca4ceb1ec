"""Hooks on what runs without a module: compiled and scripted functions, CUDA graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Function = Callable[..., Any]


def hook_functions(recorded: Callable[[Function, str, str], Function]) -> None:
    """Record calls of compiled functions, scripted functions and CUDA graphs.

    Args:
        recorded: gives a function that also records calls, from the function, its name, and what
            kind of function it is.
    """
    compile_ = torch.compile

    @functools.wraps(compile_)
    def compiled(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        result = compile_(model, *args, **kwargs)
        if model is None or isinstance(model, nn.Module):  # a decorator, which comes back here
            return result
        return recorded(result, getattr(model, "__name__", "function"), "compiled function")

    torch.compile = compiled
    for owner, method, kind in (
        (torch.jit.ScriptFunction, "__call__", "scripted function"),
        (torch.cuda.CUDAGraph, "replay", "CUDA graph"),
    ):
        setattr(owner, method, _method(getattr(owner, method), kind, recorded))


def _method(
    call: Function, kind: str, recorded: Callable[[Function, str, str], Function]
) -> Function:
    """A method that is recorded under the name of its object."""
    known: dict[int, tuple[Any, Function]] = {}

    @functools.wraps(call)
    def hooked(called: Any, *args: Any, **kwargs: Any) -> Any:
        owner, function = known.get(id(called), (None, None))
        if function is None or owner is not called:
            name = str(getattr(called, "name", "")) or type(called).__name__
            function = recorded(functools.partial(call, called), name, kind)
            known[id(called)] = called, function
        return function(*args, **kwargs)

    return hooked
