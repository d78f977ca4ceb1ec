"""What identifies a model and its inputs, so that a later run knows whether they changed."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from precisionbench.errors import FOREIGN_ERRORS

_DIGITS = 16
_SAMPLES = 1 << 16  # elements of each tensor that are read one by one


def architecture(model: nn.Module) -> str:
    """Identifies the names, shapes and dtypes of the model's tensors, and the code of its modules.

    Args:
        model: in any mode, on any device.
    """
    return _digest(itertools.chain(_shapes(model), _code(model)))


def values(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Identifies the values of tensors.

    Of a large tensor evenly spaced elements are read, and the sum of all.

    Args:
        tensors: with their names.
    """
    return _digest(part for name, tensor in tensors for part in (name.encode(), *_bytes(tensor)))


def weights(model: nn.Module) -> str:
    """Identifies the values of the model's parameters and buffers.

    Args:
        model: in any mode, on any device.
    """
    return values(itertools.chain(model.named_parameters(), model.named_buffers()))


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:_DIGITS]


def _shapes(model: nn.Module) -> Iterator[bytes]:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()


def _code(model: nn.Module) -> Iterator[bytes]:
    """The class of each module with its attributes in `repr`, and the source of each class once."""
    for name, module in model.named_modules():
        yield f"{name} {type(module).__qualname__} {module.extra_repr()}".encode()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        try:
            yield inspect.getsource(kind).encode()
        except FOREIGN_ERRORS:  # a class without a file
            yield kind.__qualname__.encode()


def _bytes(tensor: torch.Tensor) -> Iterator[bytes]:
    tensor = tensor.detach()
    yield f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    if tensor.layout != torch.strided or not tensor.numel():
        return
    flat = tensor.reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    sample = flat[::step].cpu().contiguous()
    yield sample.view(torch.uint8).numpy().tobytes()
    if step > 1 and not tensor.is_complex():
        yield str(float(flat.sum(dtype=torch.float64))).encode()
