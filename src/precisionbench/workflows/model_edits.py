"""Edits of a model or its inputs, which experiments measure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from precisionbench.backends.base import Backend, Prepared
from precisionbench.errors import PreparationError
from precisionbench.torchtools.tensors import Inputs, cast
from precisionbench.workflows.edited_models import Edited, run_within
from precisionbench.workflows.fused_attention import fuse_attention

_ALIGNMENT = 8
_STEM_CHANNELS = 4


@attrs.frozen
class EditedWorkload(Backend):
    """A backend with an edited model or edited inputs.

    Attributes:
        of: spec of the backend, for the row's name.
        change: a name in `EDITS`.
        backend: the backend.
    """

    name: ClassVar[str] = "changed"
    of: str = ""
    change: str = ""
    backend: Any = attrs.field(default=None, kw_only=True, eq=False, metadata={"recorded": False})

    @contextlib.contextmanager
    def prepare(
        self, model: nn.Module, inputs: Inputs
    ) -> Iterator[Prepared | Callable[[], object]]:
        """Edit, then prepare; see `Backend.prepare`."""
        with self.backend.prepare(*EDITS[self.change](model, inputs)) as prepared:
            yield prepared


def pad_channels(model: nn.Module, inputs: Inputs) -> Edited:
    """Pad the channels of convolutions and linear layers to multiples of 8, and crop the outputs.

    Raises:
        PreparationError: there is nothing to pad.
    """
    padded = 0
    for module in list(model.modules()):
        for name, part in module.named_children():
            if _is_misaligned(part):
                setattr(module, name, _PaddedLayer(part))
                padded += 1
    if not padded:
        raise PreparationError("the model has no layer that padding would align")
    return model, inputs


def _is_misaligned(part: nn.Module) -> bool:
    if type(part) is nn.Linear:
        return bool(part.in_features % _ALIGNMENT or part.out_features % _ALIGNMENT)
    if type(part) is not nn.Conv2d or part.groups != 1 or part.in_channels <= _STEM_CHANNELS:
        return False
    plain = part.padding_mode == "zeros"
    return plain and bool(part.in_channels % _ALIGNMENT or part.out_channels % _ALIGNMENT)


class _PaddedLayer(nn.Module):
    """A layer with more channels than its model uses."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        assert isinstance(part, (nn.Linear, nn.Conv2d))
        self.part = part
        outputs, self.inputs = part.weight.shape[:2]
        self.extra_inputs, extra_outputs = -self.inputs % _ALIGNMENT, -outputs % _ALIGNMENT
        self.outputs = outputs
        self.leading = [0, 0] * (part.weight.dim() - 2)
        extra = [*self.leading, 0, self.extra_inputs, 0, extra_outputs]
        weight = functional.pad(part.weight.data, extra)
        part.weight = nn.Parameter(weight, requires_grad=False)
        if part.bias is not None:
            part.bias = nn.Parameter(functional.pad(part.bias.data, [0, extra_outputs]), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.part(functional.pad(x, [*self.leading, 0, self.extra_inputs]))
        return y.narrow(1 if self.leading else -1, 0, self.outputs)


def randomize_inputs(model: nn.Module, inputs: Inputs) -> Edited:
    """Replace all floating-point inputs by normal random numbers."""
    return model, inputs.map(lambda t: torch.randn_like(t) if t.is_floating_point() else t)


def cast_constants(model: nn.Module, inputs: Inputs) -> Edited:
    """Make tensors that are attributes of modules buffers, which backends cast with the model.

    Raises:
        PreparationError: there is no such tensor.
    """
    found = 0
    for module in model.modules():
        names = [name for name, value in vars(module).items() if _is_floating(value)]
        for name in names:
            value = cast(vars(module).pop(name), torch.float32)
            module.register_buffer(name, value, persistent=False)
        found += len(names)
    if not found:
        raise PreparationError("no module has a floating-point tensor as an attribute")
    return model, inputs


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def compute_weights_once(model: nn.Module, inputs: Inputs) -> Edited:
    """Replace weights that are computed from others in each call by what they are now.

    Raises:
        PreparationError: there are none.
    """
    found = 0
    for module in list(model.modules()):
        parametrized: Any = module.parametrizations if parametrize.is_parametrized(module) else {}
        names = list(parametrized)
        for name in names:
            parametrize.remove_parametrizations(module, name)
        old = [h for h in module._forward_pre_hooks.values() if isinstance(h, WeightNorm)]
        for hook in old:
            remove_weight_norm(module, hook.name)
        found += len(names) + len(old)
    if not found:
        raise PreparationError("no layer has weights that are computed from others")
    return model, inputs


def flush_denormals(model: nn.Module, inputs: Inputs) -> Edited:
    """Set denormal weights and inputs to zero, and flush denormals on the CPU in each call."""
    for parameter in (*model.parameters(), *model.buffers()):
        parameter.data = _without_denormals(parameter.data)
    run_within(model, _flushed)
    return model, inputs.map(_without_denormals)


def _without_denormals(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    tiny = torch.finfo(tensor.dtype).tiny
    return torch.where(tensor.abs() < tiny, torch.zeros_like(tensor), tensor)


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


EDITS: dict[str, Callable[[nn.Module, Inputs], Edited]] = {
    "padded-channels": pad_channels,
    "random-inputs": randomize_inputs,
    "constants-cast": cast_constants,
    "weights-computed-once": compute_weights_once,
    "flush-denormals": flush_denormals,
    "fused-attention": fuse_attention,
}
