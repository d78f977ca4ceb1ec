"""Casts that a model's own code makes, and tensors that casting a model leaves as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from precisionbench.torchtools.tensors import attributes_of, cast, map_tensors

_WIDER = {
    **dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float64),
    **dict.fromkeys((torch.complex32, torch.complex64), torch.complex128),
}
_ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_METHODS: dict[Any, Any] = {
    **{getattr(torch.Tensor, name): torch.Tensor.double for name in ("float", "half", "bfloat16")},
    **{
        getattr(torch.Tensor, name): lambda tensor: tensor.to(torch.complex128)
        for name in ("cfloat", "chalf")
    },
}

_16_BITS = (torch.float16, torch.bfloat16)
_TO_16_BITS = (torch.Tensor.half, torch.Tensor.bfloat16)


@contextlib.contextmanager
def every_cast_to_float64() -> Iterator[None]:
    """Let casts to 16 and 32 bits give float64 or complex128, and new tensors be float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Wider():
            yield
    finally:
        torch.set_default_dtype(before)


class _Wider(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        wider = {name: _wider(value) for name, value in (kwargs or {}).items()}
        if func in _METHODS:
            return _METHODS[func](args[0])
        return func(*map(_wider, args), **wider)


class CastsTo16Bits(TorchFunctionMode):
    """Records whether code casts to 16 bits, so that what it computes in float64 is rounded.

    Attributes:
        found: whether it did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, and record whether it casts to 16 bits."""
        given = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, torch.dtype)]
        self.found |= func in _TO_16_BITS or any(dtype in _16_BITS for dtype in given)
        return func(*args, **(kwargs or {}))


class AttentionMasksCast(TorchFunctionMode):
    """Cast floating-point masks of attention to the dtype of the query.

    The fused kernel of a CPU takes a float32 mask with a float64 query, and misreads it.

    Attributes:
        found: whether there was such a mask in another dtype.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch with such a mask cast."""
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(_ATTENTION_ARGUMENTS, args, strict=False), **(kwargs or {}))
        if (mask := given.get("attn_mask")) is not None:
            given["attn_mask"] = cast(mask, given["query"].dtype)
            self.found |= given["attn_mask"].dtype != mask.dtype
        return func(**given)


def _wider(value: Any) -> Any:
    return _WIDER.get(value, value) if isinstance(value, torch.dtype) else value


def with_attributes_cast(model: nn.Module) -> nn.Module:
    """Cast tensors that a model's modules hold as plain attributes to float64, in place.

    Args:
        model: a private copy.

    Returns:
        The same model.
    """
    for module in model.modules():
        held = {name: one for name, one in attributes_of(module).items() if name[:1] != "_"}
        for name, value in held.items():
            if isinstance(value, (torch.Tensor, list, tuple, dict)):
                setattr(module, name, map_tensors(lambda one: cast(one, torch.float64), value))
    return model
