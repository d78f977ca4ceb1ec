"""One thing changed in a model or its inputs: what experiments measure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import torch
from torch import nn
from torch.nn import functional

from precisionbench.backends.base import Backend, Prepared
from precisionbench.errors import PreparationError
from precisionbench.torchtools.tensors import Inputs

Changed = tuple[nn.Module, Inputs]
_ALIGNMENT = 8
_STEM_CHANNELS = 4


@attrs.frozen
class WithChange(Backend):
    """A backend that is given a changed model or changed inputs.

    Attributes:
        of: spec of the backend, for the row's name.
        change: a name in `CHANGES`.
        backend: the backend itself.
    """

    name: ClassVar[str] = "changed"
    of: str = ""
    change: str = ""
    backend: Any = attrs.field(default=None, kw_only=True, eq=False, metadata={"recorded": False})

    def check_available(self) -> None:
        """As the backend says."""
        self.backend.check_available()

    @contextlib.contextmanager
    def prepare(
        self, model: nn.Module, inputs: Inputs
    ) -> Iterator[Prepared | Callable[[], object]]:
        """Change, then prepare; see `Backend.prepare`."""
        with self.backend.prepare(*CHANGES[self.change](model, inputs)) as prepared:
            yield prepared


def padded_channels(model: nn.Module, inputs: Inputs) -> Changed:
    """Convolutions and linear layers with sizes that are multiples of 8, padded and cut again.

    Raises:
        PreparationError: there is nothing to pad.
    """
    padded = 0
    for module in list(model.modules()):
        for name, part in module.named_children():
            if _is_misaligned(part):
                setattr(module, name, _Padded(part))
                padded += 1
    if not padded:
        raise PreparationError("the model has no layer that padding could align")
    return model, inputs


def _is_misaligned(part: nn.Module) -> bool:
    if type(part) is nn.Linear:
        return bool(part.in_features % _ALIGNMENT or part.out_features % _ALIGNMENT)
    if type(part) is not nn.Conv2d or part.groups != 1 or part.in_channels <= _STEM_CHANNELS:
        return False
    plain = part.padding_mode == "zeros"
    return plain and bool(part.in_channels % _ALIGNMENT or part.out_channels % _ALIGNMENT)


class _Padded(nn.Module):
    """A layer with more channels than its model knows of."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        assert isinstance(part, (nn.Linear, nn.Conv2d))
        self.part = part
        outputs, self.inputs = part.weight.shape[:2]
        self.more, more_out = -self.inputs % _ALIGNMENT, -outputs % _ALIGNMENT
        self.outputs = outputs
        self.ahead = [0, 0] * (part.weight.dim() - 2)
        weight = functional.pad(part.weight.data, [*self.ahead, 0, self.more, 0, more_out])
        part.weight = nn.Parameter(weight, requires_grad=False)
        if part.bias is not None:
            part.bias = nn.Parameter(functional.pad(part.bias.data, [0, more_out]), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.part(functional.pad(x, [*self.ahead, 0, self.more]))
        return y.narrow(1 if self.ahead else -1, 0, self.outputs)


def random_inputs(model: nn.Module, inputs: Inputs) -> Changed:
    """Normal random numbers in place of all floating-point inputs."""
    return model, inputs.map(lambda t: torch.randn_like(t) if t.is_floating_point() else t)


CHANGES: dict[str, Callable[[nn.Module, Inputs], Changed]] = {
    "padded-channels": padded_channels,
    "random-inputs": random_inputs,
}
