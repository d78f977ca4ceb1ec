"""Quantised rows for `planted_causes.py`, each with a reason for which it is not faster.

They need torchao, and are meant for a CPU (`--device cpu`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends import Backend, Prepared
from precisionbench.results.claims import EAGER, Claims
from precisionbench.torchtools.tensors import Inputs

Way = Literal["dynamic", "first", "dynamic-ao", "weight-only", "pt2e"]


def _dynamic(model: nn.Module, _: Any) -> Any:
    """Kernels of FBGEMM that quantise their input themselves."""
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def _first(model: nn.Module, _: Any) -> Any:
    """Only the first layer is quantised."""
    return torch.ao.quantization.quantize_dynamic(model, {"0"}, dtype=torch.qint8)


def _dynamic_ao(model: nn.Module, _: Any) -> Any:
    """Separate operations quantise each input."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def _weight_only(model: nn.Module, _: Any) -> Any:
    """Weights that become floats in every call."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())
    return model


def _pt2e(model: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
    """A converted model that is not compiled: its quantised operations are reference code."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, args).module(), quantizer)
    prepared(*args)
    return convert_pt2e(prepared)


_WAYS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "dynamic": _dynamic,
    "first": _first,
    "dynamic-ao": _dynamic_ao,
    "weight-only": _weight_only,
    "pt2e": _pt2e,
}


@attrs.frozen
class Int8(Backend):
    """Claims int8, and quantises in one of several ways."""

    name: ClassVar[str] = "int8"
    way: Way = "dynamic"

    def claims(self) -> Claims:
        return Claims("int8", engine=EAGER, framework="PyTorch eager")

    def prepare(self, model: nn.Module, inputs: Inputs) -> AbstractContextManager[Prepared]:
        @contextmanager
        def prepared() -> Iterator[Prepared]:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch moves its quantisation to torchao
                quantised = _WAYS[self.way](model, inputs.args)
            yield Prepared(inputs.bind(quantised), quantised)

        return prepared()


def linears(width: int, batch: int, layers: int = 2, pointwise: int = 0) -> Any:
    """Linear layers, each followed by activations."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(width, width), *(nn.Hardswish() for _ in range(pointwise))]
    return nn.Sequential(*parts), torch.randn(batch, width)
