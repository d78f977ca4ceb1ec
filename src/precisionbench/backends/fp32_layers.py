"""Single modules of a 16-bit model that stay in float32."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from precisionbench.backends.base import cast_model
from precisionbench.errors import PreparationError, did_you_mean
from precisionbench.torchtools.tensors import cast, map_tensors


def cast_but_for(model: nn.Module, paths: str | None, dtype: torch.dtype) -> nn.Module:
    """Cast a model, but for modules that compute in float32: their inputs are cast before, their
    outputs after, and their weights are never rounded.

    Args:
        model: the private copy that `prepare` was given.
        paths: of the modules, joined by `+`; None for none.
        dtype: of everything else.

    Raises:
        PreparationError: the model has no such module.
    """
    kept = _outermost([_module(model, path) for path in (paths or "").split("+") if path])
    weights = [[tensor.detach().to(torch.float32, copy=True) for tensor in _tensors(module)]
               for module in kept]  # fmt: skip
    cast_model(model, dtype)
    for module, whole in zip(kept, weights, strict=True):
        for tensor, before in zip(_tensors(module), whole, strict=True):
            tensor.data = before
        _cast_around(module, dtype)
    return model


def _outermost(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Each module once, without those that are part of another one, which computes in float32."""
    parts = {part for module in modules for part in module.modules() if part is not module}
    return [module for module in dict.fromkeys(modules) if module not in parts]


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as exc:
        known = [name for name, _ in model.named_modules() if name]
        raise PreparationError(
            f"the model has no module {path!r}", did_you_mean(path, known)
        ) from exc


def _cast_around(module: nn.Module, dtype: torch.dtype) -> None:
    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return _cast(output, dtype)

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    return map_tensors(lambda tensor: cast(tensor, dtype), tree)
