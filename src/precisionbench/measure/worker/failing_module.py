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
from precisionbench.torchtools.tensors import attributes_of, walk
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
    """

    path: str
    kind: str
    dtypes: str = ""
    devices: str = ""

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
    return FailingModule(
        path=_path(root, module),
        kind=type(module).__name__,
        dtypes=_differing(module, given, lambda tensor: dtype_name(tensor.dtype), real_only=True),
        devices=_differing(module, given, lambda tensor: str(tensor.device)),
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


def _differing(
    module: nn.Module, given: tuple[Any, ...], property_of: Property, *, real_only: bool = False
) -> str:
    """Which of a module's tensors differ in something, as the end of a sentence."""
    groups = {
        "whose input": _input_tensors(given),
        "whose weights": [*module.parameters(recurse=False), *module.buffers(recurse=False)],
        **_attribute_tensors(module),
    }
    found: dict[str, list[str]] = {}
    for name, tensors in groups.items():
        kept = (one for one in tensors if one.is_floating_point() or not real_only)
        if properties := list(dict.fromkeys(map(property_of, kept))):
            found[name] = properties
    if len({one for properties in found.values() for one in properties}) < 2:
        return ""
    verb = {"whose weights": "are"}
    parts = [f"{name} {verb.get(name, 'is')} {some(one)}" for name, one in found.items()]
    return " and ".join(parts)


def _input_tensors(given: tuple[Any, ...]) -> list[torch.Tensor]:
    return [tensor for _, tensor in walk(given, objects=True)]


def _attribute_tensors(module: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Tensors that a module holds as plain attributes, which `model.to` leaves as they are."""
    held = {n: v for n, v in attributes_of(module).items() if n[:1] != "_"}
    return {
        f"whose attribute {name!r}": tensors
        for name, value in held.items()
        if not isinstance(value, nn.Module)
        if (tensors := [tensor for _, tensor in walk(value, objects=True)])
    }
