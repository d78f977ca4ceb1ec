"""Changes the forward of a model that an experiment edits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from precisionbench.errors import PreparationError
from precisionbench.torchtools.tensors import Inputs

Edited = tuple[nn.Module, Inputs]


def run_within(model: nn.Module, context: Callable[[], AbstractContextManager[None]]) -> None:
    """Let every call of a model run in a context; its modules keep their paths.

    Args:
        model: changed in place.
        context: makes the context of a call.

    Raises:
        PreparationError: the model is scripted.
    """
    kind = type(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise PreparationError("the forward of a scripted model cannot be changed")

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with context():
            return kind.forward(self, *args, **kwargs)

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward})
