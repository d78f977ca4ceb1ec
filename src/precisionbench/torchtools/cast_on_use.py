"""Parameters in another dtype that are cast anew for every operation that reads them.

A model in float64 takes twice the memory of its float32 weights. Here the weights stay as they are,
and each operation gets its own cast copy, which is freed when the operation ends. Results are those
of a model that was cast as a whole: operations are given the same values, and whatever asks a
parameter for its dtype gets float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from precisionbench.torchtools.tensors import map_tensors

# Smaller parameters are cast for good: together they take little, and the detour costs time.
_SMALL_ELEMENTS = 1 << 16


class CastOnUse(torch.Tensor):
    """A tensor that has a dtype and holds its values in another one.

    Attributes:
        held: the values.
    """

    held: torch.Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation of torch on cast copies; a view stays a tensor that is cast on use.

        Raises:
            TypeError: it would write to a parameter, or reinterpret its bits.
        """
        kwargs = kwargs or {}
        if any(isinstance(value, cls) for value in _written(func, args, kwargs)):
            raise TypeError(f"{func} writes to a parameter that is cast on use")
        change = _held if func.is_view else _cast
        found = func(*map_tensors(change, args), **map_tensors(change, kwargs))
        if not func.is_view:
            return found
        source = next(value for value in args if isinstance(value, cls))
        return map_tensors(lambda view: _view_of(source, view), found)


def _cast_on_use(held: torch.Tensor, dtype: torch.dtype) -> CastOnUse:
    made: CastOnUse = torch.Tensor._make_wrapper_subclass(
        CastOnUse, held.shape, strides=held.stride(), dtype=dtype, device=held.device
    )
    made.held = held
    return made


def _held(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held if isinstance(tensor, CastOnUse) else tensor


def _cast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held.to(tensor.dtype) if isinstance(tensor, CastOnUse) else tensor


def _view_of(source: CastOnUse, view: torch.Tensor) -> CastOnUse:
    if view.dtype != source.held.dtype:
        raise TypeError("a parameter that is cast on use has no bits of its own to reinterpret")
    return _cast_on_use(view, source.dtype)


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments that an operation writes to."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[index] if index < len(args) else kwargs.get(argument.name)


def cast_on_use(
    model: nn.Module, dtype: torch.dtype, cast_rest: Callable[[nn.Module], object]
) -> nn.Module:
    """Let a model's large floating-point parameters be cast whenever they are used.

    Args:
        model: changed in place. Scripted and recurrent modules, which keep their weights in ways
            of their own, are among what `cast_rest` casts.
        dtype: that parameters appear to have.
        cast_rest: casts the other parameters, and all buffers, for good.

    Returns:
        The same model.
    """
    places = [
        (module, name, parameter)
        for module in model.modules()
        if not isinstance(module, (torch.jit.ScriptModule, nn.RNNBase))
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if _is_castable(parameter)
    ]
    for module, name, _ in places:
        setattr(module, name, None)
    cast_rest(model)
    made: dict[int, CastOnUse] = {}  # one for all places of a shared parameter
    for module, name, parameter in places:
        if id(parameter) not in made:
            made[id(parameter)] = _as_parameter(_cast_on_use(parameter.detach(), dtype))
        setattr(module, name, made[id(parameter)])
    return model


def _is_castable(parameter: nn.Parameter) -> bool:
    is_plain = type(parameter) is nn.Parameter and parameter.layout == torch.strided
    return is_plain and parameter.is_floating_point() and parameter.numel() >= _SMALL_ELEMENTS


def _as_parameter(tensor: CastOnUse) -> CastOnUse:
    """Mark a tensor as a parameter, as `nn.Parameter` itself does with subclasses of tensors."""
    tensor._is_param = True
    return tensor
