"""PyTorch as it is, in a 16-bit type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.base import Backend, Prepared
from precisionbench.backends.fp32_layers import cast_but_for
from precisionbench.torchtools.tensors import Inputs


@attrs.frozen
class Half(Backend):
    """Eager PyTorch with weights, buffers and inputs cast to a 16-bit type once, beforehand.

    Attributes:
        dtype: the type; integers stay integers.
        fp32_layers: paths of modules to keep in float32, joined by `+`: their inputs are cast
            before and their outputs after.
    """

    name: ClassVar[str] = "half"
    dtype: Literal["float16", "bfloat16"] = "float16"
    fp32_layers: str | None = None

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast the model and the inputs; see `Backend.prepare`."""
        dtype = getattr(torch, self.dtype)
        model, inputs = cast_but_for(model, self.fp32_layers, dtype), inputs.to(dtype)
        yield Prepared(inputs.bind(model), model)
