"""Walks through nested inputs and outputs: tuples, lists, dicts and dataclasses of tensors."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import attrs
import torch
from torch.nn.utils.rnn import PackedSequence

TensorFunction = Callable[[torch.Tensor], torch.Tensor]
LeafFunction = Callable[[Any], Any]


def _fields(tree: object) -> list[str] | None:
    """Names of the fields of a dataclass or attrs instance, else None."""
    if isinstance(tree, type):
        return None
    if dataclasses.is_dataclass(tree):
        return [field.name for field in dataclasses.fields(tree)]
    kind: Any = type(tree)
    return [field.name for field in attrs.fields(kind)] if attrs.has(kind) else None


def walk(tree: object, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in the tree with its path, such as `['boxes'][0]` or `.logits`.

    Args:
        tree: nested tuples, lists, mappings, dataclasses; other leaves are passed over.
        path: what the paths begin with.
    """
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):  # before dataclasses: a ModelOutput is both
        for key, value in tree.items():
            yield from walk(value, f"{path}[{key!r}]")
    elif isinstance(tree, (tuple, list)):
        for index, value in enumerate(tree):
            yield from walk(value, f"{path}[{index}]")
    else:
        for name in _fields(tree) or ():
            yield from walk(getattr(tree, name), f"{path}.{name}")


def _itself(leaf: Any) -> Any:
    return leaf


def map_tensors(function: TensorFunction, tree: Any, leaf: LeafFunction = _itself) -> Any:
    """The same tree with every tensor replaced by `function(tensor)`; the tree is not changed.

    Args:
        function: tensor in, tensor out.
        tree: as for `walk`.
        leaf: what to do with everything else that the tree holds (numpy arrays, caches, numbers).
    """
    recurse = functools.partial(map_tensors, function, leaf=leaf)
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, PackedSequence):  # its batch_sizes must stay on the CPU, as int64
        data, sizes, *indices = tree
        return PackedSequence(function(data), sizes, *map(recurse, indices))
    if isinstance(tree, Mapping):
        return _with_items(tree, {key: recurse(value) for key, value in tree.items()})
    if isinstance(tree, (tuple, list)):
        values = map(recurse, tree)
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    if names := _fields(tree):
        twin = copy.copy(tree)
        for name in names:
            object.__setattr__(twin, name, recurse(getattr(tree, name)))
        return twin
    return leaf(tree)


def _with_items(tree: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    if not isinstance(tree, MutableMapping):
        return items
    twin = copy.copy(tree)
    for key, value in items.items():  # a ModelOutput of transformers refuses update()
        twin[key] = value
    return twin


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A floating-point tensor in another dtype; integers stay integers.

    Complex tensors stay complex, in complex64: torch has no arithmetic to speak of for half of it.

    Args:
        tensor: any tensor.
        dtype: a floating-point dtype.
    """
    if tensor.is_complex():
        return tensor.to(torch.complex64)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def arrange(tensor: torch.Tensor, memory_format: str) -> torch.Tensor:
    """A 4-D or 5-D tensor in a memory format; any other tensor as it is.

    `tensor.contiguous()` would not do: it leaves the strides of a 1x1 convolution's weight, which
    are right for both formats, and by which cuDNN then chooses.

    Args:
        tensor: any tensor.
        memory_format: `contiguous` or `channels_last`.
    """
    if tensor.layout != torch.strided or tensor.dim() not in _CHANNELS_LAST:
        return tensor
    channels_last = memory_format == "channels_last"
    layout = _CHANNELS_LAST[tensor.dim()] if channels_last else torch.contiguous_format
    like = torch.empty(tensor.shape, device="meta", memory_format=layout)
    return tensor if tensor.stride() == like.stride() else tensor.clone(memory_format=layout)


@attrs.frozen
class Inputs:
    """The arguments of one forward pass.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)

    def map(self, function: TensorFunction, leaf: LeafFunction = _itself) -> Inputs:
        """The same arguments with every tensor replaced by `function(tensor)`.

        Args:
            function: tensor in, tensor out.
            leaf: what to do with everything that is not a tensor.

        Returns:
            New inputs; these are not changed.
        """
        return Inputs(
            map_tensors(function, self.args, leaf), map_tensors(function, self.kwargs, leaf)
        )

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same arguments with floating-point tensors cast; integers stay integers.

        Args:
            dtype: a floating-point dtype, as for `cast`.

        Returns:
            New inputs; these are not changed.
        """
        return self.map(lambda tensor: cast(tensor, dtype))

    def in_memory_format(self, memory_format: str) -> Inputs:
        """The same arguments with every 4-D and 5-D tensor arranged.

        Args:
            memory_format: `contiguous` or `channels_last`, as for `arrange`.

        Returns:
            New inputs; these are not changed.
        """
        return self.map(lambda tensor: arrange(tensor, memory_format))

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        """Every tensor with its path."""
        return [*walk(self.args), *walk(self.kwargs)]

    def bind(self, model: Callable[..., object]) -> Callable[[], object]:
        """A callable without arguments that runs one forward pass.

        Args:
            model: what to call with these arguments.

        Returns:
            The callable; it returns what the model returns.
        """
        return functools.partial(model, *self.args, **self.kwargs)
