"""PyTorch's automatic mixed precision: float32 weights, cast for the operations that benefit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.base import Backend, GradMode, Prepared, cast_model
from precisionbench.backends.rungs import Capabilities, Stage, TuningOptions
from precisionbench.errors import PrecisionBenchWarning, PreparationError
from precisionbench.results.claims import Claims
from precisionbench.results.json_values import Json
from precisionbench.torchtools.tensors import Inputs


@attrs.frozen
class Autocast(Backend):
    """`torch.autocast` over float32 weights, with one context around all calls.

    Each weight is cast once, in the first call, and cached. The cache is cleared when the outermost
    autocast context ends, so there is one context around all calls. It holds only float32 leaf
    tensors that require gradients, and none under `inference_mode` (torch 2.8 and older cache them
    there, too), so the parameters require gradients and `no_grad` disables autograd. torch gives no
    warning where one of these conditions is missing: a script that enters autocast for each call,
    or runs under `inference_mode`, casts every weight in every call. `cache_enabled=false` measures
    that case.

    Attributes:
        dtype: what matrix work is cast to.
        cache_enabled: keep the cast weights from call to call.
        grad_mode: `no_grad` here by default; see above.
    """

    name: ClassVar[str] = "autocast"
    tunes_by_timing: ClassVar[bool] = False
    dtype: Literal["float16", "bfloat16"] = "float16"
    cache_enabled: bool = True
    grad_mode: GradMode = attrs.field(default="no_grad", kw_only=True)

    def claims(self) -> Claims:
        """Matrix work in the dtype, other operations as autocast decides; see `Backend.claims`."""
        return Claims(
            dtype=self.dtype,
            mixed=True,
            framework="PyTorch eager",
            sparsity="dense",
            covered_options=("dtype",),
        )

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Both 16-bit types on a GPU, bfloat16 elsewhere; see `Backend.tuning_options`."""
        dtypes = ("float16", "bfloat16") if capabilities.device == "cuda" else ("bfloat16",)
        return TuningOptions(Stage.PRECISION, [{"dtype": dtype} for dtype in dtypes])

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Enter autocast until the row ends; see `Backend.prepare`."""
        model, inputs = cast_model(model, torch.float32), inputs.to(torch.float32)
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.is_leaf:
                parameter.requires_grad_(True)
        cached = self.cache_enabled and (self.grad_mode == "no_grad" or caches_in_inference_mode())
        if self.cache_enabled and not cached:
            warnings.warn(
                "under inference_mode autocast does not cache weights, and casts every weight in "
                "every call; leave grad_mode out",
                PrecisionBenchWarning,
                stacklevel=2,
            )
        device = inputs.tensors()[0][1].device.type
        context = torch.autocast(device, getattr(torch, self.dtype), True, self.cache_enabled)
        with context:
            self._check_on(device)
            details: dict[str, Json] = {"weights_cached": cached}
            yield Prepared(inputs.bind(model), model, details, inputs=inputs)
        torch.clear_autocast_cache()  # a caller's own autocast would keep our weights until it ends

    def _check_on(self, device: str) -> None:
        """Torch only warns, and computes in float32, where it has no autocast of this dtype."""
        if not torch.is_autocast_enabled(device):
            raise PreparationError(
                f"this torch has no autocast to {self.dtype} on {device}",
                "use dtype=bfloat16, or 'half'",
            )


def caches_in_inference_mode() -> bool:
    """Whether this torch's autocast caches weights under `inference_mode`, as torch 2.8 does.

    A cached copy does not follow when the weight changes.
    """
    inputs, weight = torch.ones(1, 1), nn.Parameter(torch.ones(1, 1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        nn.functional.linear(inputs, weight)
        weight.zero_()
        return bool(nn.functional.linear(inputs, weight).item())
