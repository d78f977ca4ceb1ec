"""What identifies a model and its inputs, so that a later run knows whether they changed."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from precisionbench.model.contents import Contents, hashed
from precisionbench.model.tensor_parts import values_of

_DIGITS = 16


def architecture(model: nn.Module) -> str:
    """Identifies the names, shapes and dtypes of the model's tensors, and what it does with them.

    That is the code of its modules, of their hooks and of the user's functions that they call, and
    the attributes of torch's own modules. Attributes of other modules are not part of it, because
    a call may change them; they are part of `weights`.

    Args:
        model: in any mode, on any device.
    """
    return _text(Contents(values=False, named=_named(model)).digest(model))


def values(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Identifies the values of tensors.

    Of a large tensor evenly spaced elements are read, and the sum of all.

    Args:
        tensors: with their names.
    """
    return _text(
        hashed(part for name, tensor in tensors for part in (name.encode(), *values_of(tensor)))
    )


def weights(model: nn.Module) -> str:
    """Identifies the values of the model's parameters and buffers, and all else that it holds.

    That is the attributes of its modules, and the values that its code and its hooks read.

    Args:
        model: in any mode, on any device.
    """
    held = Contents(named=_named(model)).digest(model)
    return _text(hashed([values(_named(model)).encode(), held]))


def unread(model: nn.Module) -> str:
    """A text that is empty where all that a model holds can be read, and else another each time.

    Args:
        model: in any mode, on any device.
    """
    contents = Contents(named=_named(model))
    contents.digest(model)
    return "" if contents.is_whole else secrets.token_hex()


def code(function: Callable[..., Any]) -> str:
    """Identifies what a function does: its code, what it holds and reads, and what it calls.

    Args:
        function: any callable; of one without Python code, its class and what it holds.

    Returns:
        A text; another one each time where something in it cannot be read.
    """
    return batch(function)


def batch(given: Any) -> str:
    """Identifies a batch of a user's data: its tensors, and everything else in it.

    Args:
        given: any structure.

    Returns:
        A text; another one each time where something in it cannot be read.
    """
    contents = Contents()
    found = _text(contents.digest(given))
    return found if contents.is_whole else secrets.token_hex()


def _named(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _text(digest: bytes) -> str:
    return digest.hex()[:_DIGITS]
