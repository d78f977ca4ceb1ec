"""Observes a model's modules while it runs, without changing what runs.

Each module's `forward` is wrapped meanwhile. Hooks are not an option: some modules of torch take
another path when hooks are attached (`nn.TransformerEncoderLayer`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]
Wrap = Callable[[str, nn.Module, Forward], Forward]


def eager_module(module: nn.Module | None) -> nn.Module | None:
    """The module where its layers run as Python calls; None where it is compiled in any part.

    Wrapping the layers of a compiled model would recompile it, or run it eagerly.

    Args:
        module: the model.
    """
    if module is None or any(map(_is_compiled, module.modules())):
        return None
    return module


def _is_compiled(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or type(module).__name__ == "OptimizedModule"


@contextlib.contextmanager
def wrapped(model: nn.Module | None, wrap: Wrap) -> Iterator[None]:
    """Wrap the forward of every module in a model, and undo it afterwards.

    Args:
        model: whose modules; scripted ones cannot be wrapped and are passed over. None has none.
        wrap: gets a module's path, the module and its forward, and gives the new forward.
    """
    undo: list[tuple[nn.Module, Any]] = []
    try:
        for path, module in model.named_modules() if model is not None else ():
            if isinstance(module, torch.jit.ScriptModule) or not hasattr(module, "forward"):
                continue
            undo.append((module, module.__dict__.get("forward", _ABSENT)))
            forward = module.forward
            module.__dict__["forward"] = functools.wraps(forward)(wrap(path, module, forward))
        yield
    finally:
        for module, before in undo:
            if before is _ABSENT:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before


_ABSENT = object()
