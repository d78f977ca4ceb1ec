"""Edits a model so that its attention can run in a fused kernel, to see what that gains.

The outputs are other ones: masks are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from precisionbench.errors import PreparationError
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.edited_models import Edited, run_within

_ALIGNMENT = 8
_torch_attention = functional.scaled_dot_product_attention


def fuse_attention(model: nn.Module, inputs: Inputs) -> Edited:
    """Leave out masks, returned weights and head sizes that rule out fused attention kernels.

    Raises:
        PreparationError: the model calls none of PyTorch's attention functions.
    """
    modules = [part for part in model.modules() if type(part) is nn.MultiheadAttention]
    for part in modules:
        part.__class__ = _PlainAttention
    calls = [0]
    run_within(model, lambda: _replaced(calls))
    with torch.inference_mode():
        inputs.bind(model)()
    if not modules and not calls[0]:
        raise PreparationError(
            "the model calls neither scaled_dot_product_attention nor nn.MultiheadAttention, so "
            "its attention cannot be replaced"
        )
    return model, inputs


class _PlainAttention(nn.MultiheadAttention):
    """Takes no mask and does not return its weights."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Attention as in PyTorch, which may then use its fused kernel."""
        arguments = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        return super().forward(**{**arguments, **_PLAIN})


_ARGUMENTS = (
    *("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"),
    *("average_attn_weights", "is_causal"),
)
_PLAIN = {"key_padding_mask": None, "need_weights": False, "attn_mask": None, "is_causal": False}


@contextlib.contextmanager
def _replaced(calls: list[int]) -> Iterator[None]:
    """Replace torch's function during a call, and count its calls."""

    def counting(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return fusable_attention(*args, **kwargs)

    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = counting
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before


def fusable_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,  # noqa: ARG001 - left out
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **more: Any,
) -> torch.Tensor:
    """PyTorch's attention without the mask, with one head size that is a multiple of 8.

    Args:
        query: (batch, heads, length, head size).
        key: (batch, heads, keys, head size).
        value: (batch, heads, keys, head size of the values).
        attn_mask: left out.
        dropout_p: as in PyTorch.
        is_causal: as in PyTorch.
        scale: as in PyTorch; the default is that of the head size before padding.
        more: other arguments of PyTorch's function.

    Returns:
        (batch, heads, length, head size of the values).
    """
    size, values = query.shape[-1], value.shape[-1]
    padded = max(size, values) + -max(size, values) % _ALIGNMENT
    query, key, value = (
        functional.pad(one, [0, padded - one.shape[-1]]) for one in (query, key, value)
    )
    output = _torch_attention(
        query, key, value, None, dropout_p, is_causal, scale=scale or size**-0.5, **more
    )
    return output[..., :values]
