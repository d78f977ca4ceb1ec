"""Where the model is from: an nn.Module, a function, `module:function` or `file.py:Class`."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import working_directory_on_path
from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, did_you_mean, kind_of, one_line
from precisionbench.model.python_files import SUFFIX, FileFactory, import_remedy, load_file
from precisionbench.model.torchvision_models import TorchvisionModel
from precisionbench.torchtools.saving import load

# Batch of the built-in models where the user names none: the founding case's on a GPU; on a CPU
# one that answers within seconds.
DEFAULT_BATCH_SIZE = {"cuda": 100}
DEFAULT_BATCH_SIZE_ELSEWHERE = 4

ModelFactory = Callable[[], Any]

_MODEL = (
    "give an nn.Module, a function that builds one, 'torchvision:NAME', 'package.module:function' "
    "or 'path/to/file.py:Class'"
)
_SEVERAL_MODELS = "give several models in a mapping, such as {'old': model, 'new': other}"


def model_factory(
    model: object, batch_size: int | None, device: torch.device
) -> tuple[str, ModelFactory]:
    """The model's name, and what builds it.

    Args:
        model: as for `workload.resolve`.
        batch_size: for models that make their own inputs.
        device: decides how many items they make where the user does not say.

    Raises:
        WorkloadError: there is no such model.
    """
    if isinstance(model, nn.Module):
        return type(model).__name__, CopiedModel(model)
    if isinstance(model, str):
        return model, _named(model, batch_size, device)
    if callable(model):
        name = getattr(model, "__name__", type(model).__name__)
        return name, _sized(model, batch_size, device)
    is_several = isinstance(model, (list, tuple, dict))
    raise WorkloadError(f"the model is {kind_of(model)}", _SEVERAL_MODELS if is_several else _MODEL)


def takes_batch_size(model: object) -> bool:
    """Whether a model makes its own inputs, of a batch size that is given to it.

    Args:
        model: as for `workload.resolve`.

    Raises:
        WorkloadError: there is no such model.
    """
    if isinstance(model, nn.Module) or not (isinstance(model, str) or callable(model)):
        return False
    if not isinstance(model, str):
        return "batch_size" in _parameters(model)
    place, _, attribute = model.rpartition(":")
    if place == "torchvision" or not place:
        return True
    factory = _attribute(place, attribute)
    return not isinstance(factory, nn.Module) and "batch_size" in _parameters(factory)


def named_function(name: str, what: str) -> Callable[..., Any]:
    """A function of a module or a file, which may import modules of the working directory.

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
        what: it is, for the error.

    Raises:
        WorkloadError: there is no such function.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise WorkloadError(
            f"the {what} {name!r} names no function",
            "write 'package.module:function' or 'path/to/file.py:function'",
        )
    function = _attribute(place, attribute)

    def call(*args: Any) -> Any:
        with working_directory_on_path():
            return function(*args)

    call.__name__ = attribute  # as reports name a metric
    return call


def default_batch_size(device: torch.device) -> int:
    """Items in one call where neither the user nor a function says how many.

    Args:
        device: to measure on.
    """
    return DEFAULT_BATCH_SIZE.get(device.type, DEFAULT_BATCH_SIZE_ELSEWHERE)


def _named(name: str, batch_size: int | None, device: torch.device) -> ModelFactory:
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise WorkloadError(_incomplete(name), _as_written(place, attribute))
    if place == "torchvision":
        return TorchvisionModel(attribute, batch_size or default_batch_size(device))
    factory = _attribute(place, attribute)
    arguments = _arguments(name, factory, batch_size, device)
    if place.endswith(SUFFIX):
        return FileFactory(Path(place).absolute(), attribute, arguments)
    if isinstance(factory, nn.Module):
        return CopiedModel(factory)
    return _in_working_directory(partial(factory, **arguments))


def _incomplete(name: str) -> str:
    """What is missing in a model's name: the colon, or the text on one side of it."""
    if ":" not in name:
        return f"the model {name!r} has no ':'"
    side = "before" if name.startswith(":") else "after"
    return f"the model {name!r} has nothing {side} the ':'"


def _as_written(place: str, attribute: str) -> str:
    """How to write a model's name of which only one side of the colon was given."""
    given = place or attribute
    if given.endswith(SUFFIX):
        return f"write '{given}:function' or '{given}:Class'"
    model = "resnet50" if given in ("", "torchvision") else given
    return f"write 'torchvision:{model}', 'package.module:function' or 'file.py:Class'"


def _attribute(place: str, attribute: str) -> Any:
    """A function, class or model of a module or a file."""
    is_file = place.endswith(SUFFIX)
    module = load_file(Path(place)) if is_file else _imported(place)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise WorkloadError(
            f"the {'file' if is_file else 'module'} {place!r} has no function {attribute!r}",
            did_you_mean(attribute, known),
        )
    return found


def _imported(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")) or Path(place).is_file():
        raise WorkloadError(
            f"{place!r} is neither a module nor a Python file", _file_or_module(place)
        )
    with working_directory_on_path():
        try:
            return importlib.import_module(place)
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the module {place!r} cannot be imported ({one_line(exc)})",
                import_remedy(exc, f"python -c 'import {place}'"),
            ) from exc


def _file_or_module(place: str) -> str:
    """How to write a place that is neither a module nor a Python file."""
    if Path(place + SUFFIX).is_file():
        return f"write '{place}{SUFFIX}:function'"
    return "write 'torchvision:NAME', 'package.module:function' or 'path/to/file.py:function'"


def _arguments(
    name: str, factory: Any, batch_size: int | None, device: torch.device
) -> dict[str, int]:
    """What to call a function with: the batch, unless the user leaves it to its own default."""
    if isinstance(factory, nn.Module):
        return {}
    parameter = _parameters(factory).get("batch_size")
    if parameter is None and batch_size is not None:
        raise WorkloadError(
            f"the function {name!r} has no parameter batch_size",
            "add a parameter of that name, or leave the batch size out",
        )
    if parameter is None or (batch_size is None and parameter.default is not parameter.empty):
        return {}
    return {"batch_size": default_batch_size(device) if batch_size is None else batch_size}


def _sized(factory: ModelFactory, batch_size: int | None, device: torch.device) -> ModelFactory:
    """A function of the user, with the batch where it takes one."""
    if "batch_size" not in _parameters(factory):
        return factory
    arguments = _arguments("", factory, batch_size, device)
    return partial(factory, **arguments) if arguments else factory


def _parameters(factory: ModelFactory) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # builtins have no signature
        return {}


def _in_working_directory(factory: ModelFactory) -> ModelFactory:
    """A factory may import further modules of the working directory when it is called."""

    def build() -> Any:
        with working_directory_on_path():
            return factory()

    return build


@attrs.frozen(eq=False)
class CopiedModel:
    """Gives private copies of a model.

    Attributes:
        model: the user's, which is never changed.
    """

    model: nn.Module

    def __call__(self) -> nn.Module:
        """A private copy."""
        return private_copy(self.model)


@attrs.frozen
class StoredModel:
    """Reads a model from its file, anew each time: that takes a fifth of the time of a deep copy.

    Attributes:
        file: written by `saving.save`.
    """

    file: Path

    def __call__(self) -> nn.Module:
        """The model, in memory of its own."""
        model: nn.Module = load(self.file)
        return model


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy of a model.

    Raises:
        WorkloadError: the copy would differ from the model, or shares weights with it.
    """
    if any(getattr(part, "_compiled_call_impl", None) for part in model.modules()):
        raise WorkloadError(
            "model.compile() is lost in the copy that each backend gets",
            "pass torch.compile(model), or a function that builds and compiles the model",
        )
    twin = copy.deepcopy(model)
    originals = set(map(id, [model, *tensors_of(model)]))
    if not originals.isdisjoint(map(id, [twin, *tensors_of(twin)])):
        raise WorkloadError(
            "copy.deepcopy of the model shares weights with the original",
            "pass a function that builds the model",
        )
    return twin


def tensors_of(model: nn.Module) -> list[torch.Tensor]:
    """A model's parameters and buffers."""
    return [*model.parameters(), *model.buffers()]
