"""A key for what is built of a model and kept, so that it is used for the same model only."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping

import torch
from torch import nn

from precisionbench.model import fingerprint
from precisionbench.results.json_values import Json


def model_key(parts: Mapping[str, Json], model: nn.Module) -> str:
    """A key of a model and of everything else that a build of it depends on.

    Args:
        parts: everything besides the model that the build depends on, such as versions and shapes.
        model: its structure, every weight, its code and everything else that it holds enter the
            key.

    Returns:
        40 hexadecimal digits; others each time where something in the model cannot be read.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    held = (fingerprint.architecture, fingerprint.weights, fingerprint.unread)
    digest.update("".join(read(model) for read in held).encode())
    # Not state_dict(), which leaves out buffers that are not persistent.
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:40]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's raw content."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()
