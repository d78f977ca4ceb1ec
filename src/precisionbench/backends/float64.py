"""The model in float64, which errors are measured against; users cannot name this backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import attrs
import torch
from torch import nn

from precisionbench.backends.base import Backend, Prepared, cast_model
from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.torchtools.casts_within import (
    AttentionMasksCast,
    every_cast_to_float64,
    with_attributes_cast,
)
from precisionbench.torchtools.tensors import Inputs


@attrs.frozen
class Float64(Backend):
    """Eager PyTorch with weights, buffers and inputs cast to float64."""

    name: ClassVar[str] = "float64"
    tunes_by_timing: ClassVar[bool] = False
    is_timed: ClassVar[bool] = False

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast the model, and what it casts itself where it must; see `Backend.prepare`."""
        model, inputs = cast_model(model, torch.float64), inputs.to(torch.float64)
        call = inputs.bind(model)
        with ExitStack() as stack:
            masks = AttentionMasksCast()
            try:
                with torch.no_grad(), masks:
                    call()
                if masks.found or not _has_fast_path(model):
                    stack.enter_context(masks)
            except FOREIGN_ERRORS:
                stack.enter_context(masks)
                stack.enter_context(every_cast_to_float64())
                with_attributes_cast(model)
            yield Prepared(call, model, inputs=inputs)


def _has_fast_path(model: nn.Module) -> bool:
    """Whether torch has another implementation of a module, which a function mode turns off.

    It gives 0 where inputs are padding, and the usual one gives numbers there.
    """
    kinds = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
    return any(isinstance(module, kinds) for module in model.modules())
