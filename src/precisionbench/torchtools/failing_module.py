"""The module of a model in which a call failed, and which of its tensors do not fit together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.errors import FOREIGN_ERRORS, some
from precisionbench.results.dtypes import dtype_name
from precisionbench.torchtools.tensors import attributes_of, is_computed_in, walk
from precisionbench.torchtools.timer import Call

_COMPILED = "OptimizedModule"  # the class around what torch.compile was given
Property = Callable[[torch.Tensor], str]


@attrs.frozen
class FailingModule:
    """Where a call failed.

    Attributes:
        path: of the innermost module in whose forward it failed; empty for the model itself.
        kind: the module's class.
        dtypes: which dtypes of its input, weights and attributes differ; empty where none do.
        devices: the same of devices.
        half: the 16-bit dtype of the model or its input; empty where neither has 16 bits.
        alike: paths of the modules of its class, itself among them; only of its own where the
            class is one of torch's layers, since it is what this one was given that does not fit.
    """

    path: str
    kind: str
    dtypes: str = ""
    devices: str = ""
    half: str = ""
    alike: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} ({self.kind})" if self.path else self.kind


def failing_module(error: BaseException) -> FailingModule | None:
    """The innermost module whose code is in an error's traceback; None where there is none.

    Args:
        error: that a call raised; its frames must still hold their variables.
    """
    frames = [
        (found, local)
        for local in _variables(error)
        if isinstance(found := local.get("self"), nn.Module)
        if type(found).__name__ != _COMPILED
    ]
    if not frames or isinstance(frames[-1][0], torch.fx.GraphModule):  # made of several modules
        return None
    root, module = frames[0][0], frames[-1][0]
    given = next((found for one, local in frames if one is module if (found := _given(local))), ())
    tensors = [*_input_tensors(given), *root.parameters()]
    return FailingModule(
        path=_path(root, module),
        kind=type(module).__name__,
        dtypes=_differing(module, given, _real_dtype, lambda tensor: dtype_name(tensor.dtype)),
        devices=_differing(module, given, _device, _device),
        alike=_alike(root, module),
        half=_half_of(tensors),
    )


def failing_module_in_eager(call: Call) -> FailingModule | None:
    """Where a compiled call fails if it runs operation by operation; None if it does not fail.

    Args:
        call: one forward pass that failed, of which no traceback has the modules.
    """
    if "torch._dynamo" not in sys.modules:
        return None
    try:
        with torch.compiler.set_stance("force_eager"):
            call()
    except FOREIGN_ERRORS as exc:
        return failing_module(exc)
    return None


def _variables(error: BaseException) -> Iterator[Mapping[str, Any]]:
    """Variables of every function in the traceback, the outermost first."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_locals
        traceback = traceback.tb_next


def _given(local: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a module, from the variables of `Module.__call__`."""
    args, kwargs = local.get("args"), local.get("kwargs")
    return (args, kwargs) if isinstance(args, tuple) and isinstance(kwargs, dict) else ()


def _path(root: nn.Module, module: nn.Module) -> str:
    return next((path for path, one in root.named_modules() if one is module), "")


def _half_of(tensors: list[torch.Tensor]) -> str:
    """The first dtype of 16 bits among them."""
    found = (t.dtype for t in tensors if t.dtype in (torch.float16, torch.bfloat16))
    return next(map(dtype_name, found), "")


def _alike(root: nn.Module, module: nn.Module) -> tuple[str, ...]:
    kind = type(module)
    is_layer = kind.__module__.startswith("torch.nn.")
    return tuple(
        path
        for path, one in root.named_modules()
        if one is module or (type(one) is kind and not is_layer)
    )


def _real_dtype(tensor: torch.Tensor) -> str:
    """The floating-point dtype that fits to a tensor's; empty for what only stores numbers."""
    if is_computed_in(tensor.dtype) or tensor.is_complex():
        return dtype_name(tensor.dtype.to_real())
    return ""


def _device(tensor: torch.Tensor) -> str:
    return str(tensor.device)


def _differing(
    module: nn.Module, given: tuple[Any, ...], property_of: Property, shown: Property
) -> str:
    """Which of a module's tensors differ in something, as the end of a sentence."""
    groups = {
        "whose input is": _input_tensors(given),
        "whose weights are": [*module.parameters(recurse=False), *module.buffers(recurse=False)],
        **_attribute_tensors(module),
    }
    kept = {name: [one for one in tensors if property_of(one)] for name, tensors in groups.items()}
    if len({property_of(one) for tensors in kept.values() for one in tensors}) < 2:
        return ""
    return " and ".join(
        f"{name} {some(list(dict.fromkeys(map(shown, tensors))))}"
        for name, tensors in kept.items()
        if tensors
    )


def _input_tensors(given: tuple[Any, ...]) -> list[torch.Tensor]:
    return [tensor for _, tensor in walk(given, objects=True)]


def _attribute_tensors(module: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Tensors that a module holds as plain attributes, which `model.to` leaves as they are."""
    held = {n: v for n, v in attributes_of(module).items() if n[:1] != "_"}
    return {
        f"whose attribute {name!r} is": tensors
        for name, value in held.items()
        if not isinstance(value, nn.Module)
        if (tensors := [tensor for _, tensor in walk(value, objects=True)])
    }
