"""Single modules of a 16-bit model that stay in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from precisionbench.backends.base import cast_model
from precisionbench.errors import PreparationError, did_you_mean
from precisionbench.trees import cast, map_tensors


def keep_in_float32(model: nn.Module, paths: str | None, dtype: torch.dtype) -> None:
    """Let some modules compute in float32: their inputs are cast before, their outputs after.

    Args:
        model: the private copy that `prepare` was given, in another dtype already.
        paths: of the modules, joined by `+`; None for none.
        dtype: of everything else.

    Raises:
        PreparationError: the model has no such module.
    """
    for path in (paths or "").split("+"):
        if path:
            _keep(_module(model, path), dtype)


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as exc:
        known = [name for name, _ in model.named_modules() if name]
        raise PreparationError(
            f"the model has no module {path!r}", did_you_mean(path, known)
        ) from exc


def _keep(module: nn.Module, dtype: torch.dtype) -> None:
    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return _cast(output, dtype)

    cast_model(module, torch.float32)
    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    return map_tensors(lambda tensor: cast(tensor, dtype), tree)
