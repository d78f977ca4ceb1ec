"""A model as engines take it: tensors in, a tuple of tensors out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.errors import PreparationError
from precisionbench.torchtools.tensors import Inputs, map_tensors, walk


@attrs.frozen
class FlatModel:
    """A model whose arguments and results are plain tensors, for exporters.

    Attributes:
        module: takes the tensors of the inputs in the order of `walk`, and returns those of the
            output in the same order, each once.
        inputs: the tensors, contiguous.
        expected: what the model returns for them.
    """

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    expected: Any

    @property
    def outputs(self) -> list[torch.Tensor]:
        """The tensors of the expected output, each once."""
        tensors = [tensor for _, tensor in walk(self.expected)]
        return [tensors[place] for place in _first_places(tensors)]

    def rebuilt(self, outputs: Sequence[torch.Tensor]) -> Any:
        """What the model returns, with other tensors in it.

        Args:
            outputs: one for each of `self.outputs`.
        """
        known = {id(old): new for old, new in zip(self.outputs, outputs, strict=True)}
        return map_tensors(lambda tensor: known[id(tensor)], self.expected)


def _first_places(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Where each tensor is for the first time: OpenVINO refuses one that is returned twice."""
    return sorted({id(tensor): place for place, tensor in reversed([*enumerate(tensors)])}.values())


class _Flat(nn.Module):
    def __init__(self, model: nn.Module, inputs: Inputs, returned: Sequence[int]) -> None:
        super().__init__()
        self.model, self.structure, self.returned = model, inputs, returned

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        remaining = iter(tensors)
        args = _with_tensors(self.structure.args, remaining)
        kwargs = _with_tensors(self.structure.kwargs, remaining)
        outputs = [tensor for _, tensor in walk(self.model(*args, **kwargs))]
        return tuple(outputs[place] for place in self.returned)


def _with_tensors(tree: Any, tensors: Iterator[torch.Tensor]) -> Any:
    return map_tensors(lambda _: next(tensors), tree)


def flattened(model: nn.Module, inputs: Inputs) -> FlatModel:
    """The model with its inputs as plain tensors; it is called once.

    Args:
        model: in eval mode.
        inputs: its arguments.

    Raises:
        PreparationError: the output has no tensor.
    """
    inputs = inputs.map(torch.Tensor.contiguous)
    with torch.no_grad():
        expected = inputs.bind(model)()
    outputs = [tensor for _, tensor in walk(expected)]
    if not outputs:
        raise PreparationError(
            "the model's output has no tensor", "wrap the model so that it returns tensors"
        )
    tensors = tuple(tensor for _, tensor in inputs.tensors())
    module = _Flat(model, inputs, _first_places(outputs)).eval()
    return FlatModel(module, tensors, expected)
