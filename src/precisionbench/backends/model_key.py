"""A key for what is built of a model and kept, so that it is used for the same model only."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from precisionbench.results.json_values import Json

_PLAIN = (bool, int, float, str, tuple, type(None))


def model_key(parts: Mapping[str, Json], model: nn.Module) -> str:
    """A key of a model and of everything else that a build of it depends on.

    Args:
        parts: everything besides the model that the build depends on, such as versions and shapes.
        model: its structure, every weight and the options of torch's layers enter the key. The
            code of the user's `forward` cannot.

    Returns:
        40 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(repr(model).encode())
    digest.update(repr([*_options(model)]).encode())
    # Not state_dict(), which leaves out buffers that are not persistent.
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:40]


def _options(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Options of torch's own layers that their text leaves out, such as the number of heads."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            for name, value in sorted(vars(module).items()):
                if isinstance(value, _PLAIN) and name != "training":
                    yield path, name, repr(value)
                elif callable(value) and not isinstance(value, nn.Module):
                    yield path, name, getattr(value, "__qualname__", "")


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's raw content."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()
