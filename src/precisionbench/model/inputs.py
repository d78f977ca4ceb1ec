"""The arguments of one forward pass: made from what the user gives, checked, and batched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from precisionbench._internal.numbers import whole_number
from precisionbench.errors import WorkloadError, kind_of
from precisionbench.torchtools.tensors import (
    INDEX_DTYPES,
    Inputs,
    deep_copied,
    map_with_objects,
    walk,
)


def is_factory(inputs: object) -> bool:
    """Whether calling this makes the inputs.

    Args:
        inputs: as the user gave them.
    """
    return callable(inputs) and not isinstance(inputs, (torch.Tensor, Mapping, Inputs))


def as_inputs(given: Any, name: str) -> Inputs:
    """The arguments of one forward pass, checked.

    Args:
        given: a tensor, a tuple of positional arguments, a mapping of keyword arguments.
        name: the model's, for the error.

    Raises:
        WorkloadError: it is none of these, or holds something that cannot be measured.
    """
    if given is None:
        raise WorkloadError(
            f"the model {name!r} has no inputs",
            "give inputs (--input-shape on the command line), or return (model, inputs) from the "
            "factory",
        )
    if isinstance(given, list):
        raise WorkloadError(
            "inputs is a list, which can mean one argument or several",
            "did you mean the tuple `([...],)` for one argument that is a list, or `(a, b)`?",
        )
    inputs = _wrapped(given)
    if inputs is None:
        raise WorkloadError(
            f"inputs is {kind_of(given)}",
            "give a tensor, a tuple of arguments, a dict of keyword arguments, or a factory",
        )
    _check(inputs)
    return inputs


def _check(inputs: Inputs) -> None:
    keys: Iterable[object] = inputs.kwargs
    if odd := [key for key in keys if not isinstance(key, str)]:
        raise WorkloadError(
            f"inputs has the key {odd[0]!r}, and names of keyword arguments must be text",
            "did you mean `({...},)` for one argument that is a dict?",
        )
    if not inputs.tensors():
        raise WorkloadError("inputs holds no tensor", "give at least one tensor")
    if nested := [path for path, tensor in inputs.tensors() if tensor.is_nested]:
        raise WorkloadError(
            f"inputs{nested[0]} is a nested tensor, which has no single shape",
            "give a padded tensor, and nest it in the model's forward",
        )
    inputs.map(lambda tensor: tensor)  # raises for an object with tensors that cannot be copied


def _wrapped(given: Any) -> Inputs | None:
    if isinstance(given, Inputs):
        return given
    if isinstance(given, (torch.Tensor, PackedSequence)):
        return Inputs((given,))
    if isinstance(given, Mapping):
        return Inputs(kwargs=dict(given))
    return Inputs(given) if isinstance(given, tuple) else None


def batch_size_of(given: int | None, inputs: Inputs) -> int | None:
    """Items in one call: what the user says, else the length of the first argument.

    Args:
        given: what the user says.
        inputs: the arguments.

    Raises:
        WorkloadError: the inputs cannot hold this number of items, or hold none.
    """
    found = _batch_of(inputs)
    if found == 0:
        raise WorkloadError("the inputs hold a batch of 0 items", "give at least one item")
    if given is None or found is None:
        return given or found
    dimensions = {size for _, tensor in inputs.tensors() for size in tensor.shape}
    if given > found and given not in dimensions:  # fewer may be: graphs are batched as nodes
        raise WorkloadError(
            f"batch_size is {given}, but the inputs hold {found} items",
            "make the inputs of that size, or leave batch_size out",
        )
    return given


def _batch_of(inputs: Inputs) -> int | None:
    first = next(iter(_values(inputs)), None)
    if isinstance(first, PackedSequence):
        return int(first.batch_sizes[0])
    if isinstance(first, list):
        return len(first)
    tensor = inputs.tensors()[0][1]
    return len(tensor) if tensor.dim() else None


def whole_batch_size(given: object) -> int | None:
    """A batch size as a plain int; None stays None.

    Raises:
        WorkloadError: it is not a whole number of 1 or more.
    """
    size = whole_number(given, 1)
    if given is not None and size is None:
        several = isinstance(given, (list, tuple))
        rows = ", or a row of each, such as 'half:batch_size=4'" if several else ""
        wanted = "a whole number from 1 to 2**63 - 1"
        raise WorkloadError(f"batch_size is {given!r}", f"give {wanted}{rows}")
    return size


def with_items(inputs: Inputs, batch_size: int, count: int) -> Inputs:
    """The same arguments with the first items of their batch only, or with all of them repeated.

    Where the first argument is a list, its elements are the items, of whatever shapes; otherwise
    items are along the first dimension of tensors.

    Args:
        inputs: the arguments.
        batch_size: items that they hold; 0 where that is not known.
        count: items to have, another number.

    Raises:
        WorkloadError: nothing in them is as long as the batch, or they are packed sequences.
    """
    if any(isinstance(value, PackedSequence) for value in _values(inputs)):
        raise WorkloadError(
            "the inputs hold packed sequences, whose batch cannot be changed",
            "make inputs of that size",
        )
    changed = _repeated(inputs, batch_size, count) if batch_size else inputs
    if _shapes(changed) == _shapes(inputs):
        raise WorkloadError(
            f"nothing in the inputs holds {batch_size or 'a known number of'} items, so there is "
            "no batch to change",
            "make inputs of that size",
        )
    return changed


def may_index_items(inputs: Inputs, batch_size: int, count: int) -> bool:
    """Whether integers in the arguments may be indices of items that a smaller batch does not have.

    An index out of bounds is an error on a CPU; on a GPU it ends the process's CUDA context. So the
    answer is yes where in doubt. Integers of 0 and 1 only are taken for masks.

    Args:
        inputs: the arguments, with all items.
        batch_size: items that they hold.
        count: items to keep.
    """
    return any(_in_range(tensor, max(count, 2), batch_size) for _, tensor in inputs.tensors())


def _in_range(tensor: torch.Tensor, least: int, most: int) -> bool:
    """Whether an integer tensor's largest value is an index of an item, or the end of the last."""
    if tensor.dtype not in INDEX_DTYPES or not tensor.numel() or tensor.layout != torch.strided:
        return False
    return least <= int(tensor.max()) <= most


def _repeated(inputs: Inputs, batch_size: int, count: int) -> Inputs:
    """The inputs with `count` items of their batch, which is repeated as often as needed."""
    places = [place % batch_size for place in range(count)]
    items_in_lists = isinstance(_values(inputs)[0], list)

    def of_tensor(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[places] if tensor.dim() and len(tensor) == batch_size else tensor

    def of_value(value: Any) -> Any:
        is_batch = isinstance(value, list) and len(value) == batch_size
        if is_batch and (items_in_lists or _holds_no_tensor(value)):
            return [value[place] for place in places]
        return map_with_objects(of_tensor, value)

    kwargs = {name: of_value(value) for name, value in inputs.kwargs.items()}
    return Inputs(tuple(map(of_value, inputs.args)), kwargs)


def _values(inputs: Inputs) -> tuple[Any, ...]:
    return (*inputs.args, *inputs.kwargs.values())


def _holds_no_tensor(value: list[Any]) -> bool:
    """Whether a list holds no tensors, but one text for each item, for example."""
    return not any(True for _ in walk(value))


def copied(inputs: Inputs, device: torch.device) -> Inputs:
    """Copies of the arguments that share nothing with them, tensors on a device.

    Raises:
        WorkloadError: something in them cannot be copied.
    """
    return inputs.map(lambda tensor: tensor.detach().to(device, copy=True), deep_copied)


def _shapes(inputs: Inputs) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for _, tensor in inputs.tensors()]
