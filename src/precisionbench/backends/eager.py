"""PyTorch as it is, in float32."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.base import Backend, Prepared, cast_model, check_tf32, require_cuda
from precisionbench.backends.rungs import CHANNELS_LAST, Capabilities, Rung, Stage, TuningOptions
from precisionbench.results.claims import EAGER, Claims
from precisionbench.results.dtypes import AMPERE, FLOAT32, LONG_NAMES, dtype_name
from precisionbench.results.json_values import Json
from precisionbench.torchtools.global_state import fp32_precision
from precisionbench.torchtools.tensors import Inputs, is_computed_in


@attrs.frozen
class Eager(Backend):
    """Eager PyTorch in float32: IEEE float32, or TF32 on the tensor cores.

    A model of another floating-point dtype is cast to float32 first, so that the label holds.

    Attributes:
        precision: `fp32` switches TF32 off for matmuls, convolutions and RNNs; `tf32` switches
            it on for all three. (PyTorch's own default is a mix: convolutions in TF32, matmuls
            in IEEE float32.)
    """

    name: ClassVar[str] = "eager"
    tunes_by_timing: ClassVar[bool] = False
    precision: Literal["fp32", "tf32"] = "fp32"

    def check_available(self) -> None:
        """Raise if TF32 is asked for and the GPU has none."""
        if self.precision == "tf32":
            check_tf32()

    def claims(self) -> Claims:
        """IEEE float32 or TF32; see `Backend.claims`."""
        return Claims(
            dtype=LONG_NAMES[self.precision],
            engine=EAGER,
            framework="PyTorch eager",
            sparsity="dense",
            covered_options=("precision",),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Float32, TF32, and float32 in channels_last; see `Backend.ladder_rungs`."""
        yield Rung(Stage.PRECISION)
        if capabilities.device == "cuda" and capabilities.capability >= AMPERE:
            yield Rung(Stage.PRECISION, {"precision": "tf32"})
        if capabilities.has_images:
            yield Rung(Stage.LAYOUT, CHANNELS_LAST)

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Float32, and TF32 on GPUs that have it; see `Backend.tuning_options`."""
        has_tf32 = capabilities.device == "cuda" and capabilities.capability >= AMPERE
        return TuningOptions(Stage.PRECISION, [{}, {"precision": "tf32"}] if has_tf32 else [{}])

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast the model to float32 and set the precision; see `Backend.prepare`."""
        if self.precision == "tf32":
            require_cuda(inputs)
        tensors = itertools.chain(model.parameters(), model.buffers())
        cast_from = sorted({_floating_dtype(tensor) for tensor in tensors} - {FLOAT32, "complex64"})
        model, inputs = cast_model(model, torch.float32), inputs.to(torch.float32)
        with fp32_precision("ieee" if self.precision == "fp32" else "tf32"):
            details: dict[str, Json] = {"cast_from": cast_from} if cast_from else {}
            yield Prepared(inputs.bind(model), model, details, inputs=inputs)


def _floating_dtype(tensor: torch.Tensor) -> str:
    """The dtype of a floating-point or complex tensor; what only stores numbers is not cast."""
    computes = is_computed_in(tensor.dtype) or tensor.is_complex()
    return dtype_name(tensor.dtype) if computes else FLOAT32
