"""Counts denormal values in a model's weights, inputs and layer outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from precisionbench.probes.layers import Forward, wrapped
from precisionbench.results.evidence import Denormals
from precisionbench.torchtools.tensors import is_plain, walk
from precisionbench.torchtools.timer import Call

# float16 is left out: CPUs compute it in float32, where its denormals are normal.
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_MOST_ELEMENTS = 4096  # of a tensor


def denormals_of(call: Call, module: nn.Module | None, device: torch.device) -> dict[str, Any]:
    """The layers with denormal values, on a CPU; a field of `Evidence`.

    Args:
        call: one forward pass, warm.
        module: the model behind it, where there is one in eager mode.
        device: where it runs; on a GPU denormals cost nothing and are not counted.
    """
    if device.type != "cpu":
        return {}
    shares: dict[str, float] = {}

    def wrap(path: str, part: nn.Module, forward: Forward) -> Forward:
        def counting(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            tensors = [t for _, t in walk((args, kwargs, output))]
            found = map(denormal_share, (*part.parameters(recurse=False), *tensors))
            shares[path] = max(shares.get(path, 0.0), *found, 0.0)
            return output

        return counting

    with wrapped(module, wrap):
        call()
    return {"denormals": tuple(Denormals(path, share) for path, share in shares.items() if share)}


def denormal_share(tensor: torch.Tensor) -> float:
    """The share of denormal values among evenly spaced elements of a tensor.

    Args:
        tensor: of any shape and dtype.
    """
    is_quantised = hasattr(tensor, "__tensor_flatten__")  # its dtype is not that of its numbers
    if is_quantised or not is_plain(tensor) or tensor.dtype not in _DTYPES or not tensor.numel():
        return 0.0
    flat = tensor.detach().reshape(-1)
    magnitudes = flat[:: max(1, flat.numel() // _MOST_ELEMENTS)].abs()
    # As integers: where denormals are flushed, comparisons of floats take them for zeros.
    bits = magnitudes.view(_INTEGERS[tensor.dtype])
    smallest = torch.tensor(torch.finfo(tensor.dtype).tiny, dtype=tensor.dtype).view(bits.dtype)
    return float(((bits > 0) & (bits < smallest)).double().mean())


_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}
