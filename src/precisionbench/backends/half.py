"""PyTorch as it is, in a 16-bit type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.base import Backend, Prepared, names
from precisionbench.backends.fp32_layers import cast_but_for
from precisionbench.backends.rungs import CHANNELS_LAST, Capabilities, Rung, Stage, TuningOptions
from precisionbench.results.claims import EAGER, Claims
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
    tunes_by_timing: ClassVar[bool] = False
    dtype: Literal["float16", "bfloat16"] = "float16"
    fp32_layers: str | None = attrs.field(default=None, metadata=names(""))

    def claims(self) -> Claims:
        """The 16-bit dtype; none where layers stay in float32; see `Backend.claims`."""
        layers = self.fp32_layers
        return Claims(
            dtype="" if layers else self.dtype,
            precision=f"mixed {self.dtype} ({layers} in float32)" if layers else "",
            engine=EAGER,
            framework="PyTorch eager",
            sparsity="dense",
            covered_options=("dtype", "fp32_layers"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Float16 on a GPU, bfloat16 elsewhere; see `Backend.ladder_rungs`."""
        options = {} if capabilities.device == "cuda" else {"dtype": "bfloat16"}
        yield Rung(Stage.PRECISION, options)
        if capabilities.has_images:
            yield Rung(Stage.LAYOUT, {**options, **CHANNELS_LAST})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:  # noqa: ARG003
        """Both 16-bit types; see `Backend.tuning_options`."""
        return TuningOptions(Stage.PRECISION, [{"dtype": "float16"}, {"dtype": "bfloat16"}])

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast the model and the inputs; see `Backend.prepare`."""
        dtype = getattr(torch, self.dtype)
        model, inputs = cast_but_for(model, self.fp32_layers, dtype), inputs.to(dtype)
        yield Prepared(inputs.bind(model), model, inputs=inputs)
