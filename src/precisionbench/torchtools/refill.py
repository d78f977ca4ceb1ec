"""Other values in the tensors that a prepared call reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from precisionbench.errors import WorkloadError
from precisionbench.results.dtypes import dtype_name
from precisionbench.torchtools.tensors import Inputs

_SAME_SHAPES = (
    "give inputs of the shapes that it was prepared with, for example drop the last, smaller batch"
)


def refill(inputs: Inputs, tensors: Sequence[torch.Tensor]) -> None:
    """Copy new values into the tensors that a prepared call reads; they are cast as they are.

    Nothing is copied where something differs.

    Args:
        inputs: `Prepared.inputs`; changed in place.
        tensors: one for each of `inputs.tensors()`, in this order and of these shapes, on any
            device.

    Raises:
        WorkloadError: their number, a shape or the kind of a dtype differs.
    """
    read = inputs.tensors()
    if len(tensors) != len(read):
        raise WorkloadError(
            f"the inputs hold {len(tensors)} tensors where the prepared call reads {len(read)}",
            "give the same arguments as those that it was prepared with",
        )
    for (path, target), tensor in zip(read, tensors, strict=True):
        _check(path, tensor, target)
    with torch.inference_mode():  # which allows it for leaves, views and inference tensors
        for (_, target), tensor in zip(read, tensors, strict=True):
            target.copy_(tensor)


def _check(path: str, tensor: torch.Tensor, target: torch.Tensor) -> None:
    if tensor.shape != target.shape:
        raise WorkloadError(
            f"inputs{path} has shape {_text(tensor.shape)} where the prepared call reads "
            f"{_text(target.shape)}",
            _SAME_SHAPES,
        )
    if not torch.can_cast(tensor.dtype, target.dtype):
        raise WorkloadError(
            f"inputs{path} is {dtype_name(tensor.dtype)} where the prepared call reads "
            f"{dtype_name(target.dtype)}",
            "give tensors of the dtypes that it was prepared with",
        )


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


@contextlib.contextmanager
def refilled(inputs: Inputs, tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """Copy new values as `refill` does, and the earlier ones back on leaving.

    Args:
        inputs: as for `refill`.
        tensors: as for `refill`.

    Raises:
        WorkloadError: as `refill`.
    """
    before = [tensor.clone() for _, tensor in inputs.tensors()]
    refill(inputs, tensors)
    try:
        yield
    finally:
        refill(inputs, before)
