"""Where the model is from: an nn.Module that is copied, a function, or `module:function`."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from precisionbench._internal.importing import working_directory_on_path
from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, did_you_mean, one_line
from precisionbench.model.torchvision_models import TorchvisionModel

# Batch of the built-in models where the user names none: the founding case's on a GPU; on a CPU
# one that answers within seconds.
DEFAULT_BATCH_SIZE = {"cuda": 100}
DEFAULT_BATCH_SIZE_ELSEWHERE = 4

ModelFactory = Callable[[], Any]


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
        return type(model).__name__, lambda: private_copy(model)
    if isinstance(model, str):
        return model, _named(model, batch_size, device)
    if callable(model):
        return getattr(model, "__name__", type(model).__name__), model
    raise WorkloadError(
        f"the model is a {type(model).__name__}",
        "give an nn.Module, a function that builds one, 'torchvision:NAME' or "
        "'package.module:function'",
    )


def _named(name: str, batch_size: int | None, device: torch.device) -> ModelFactory:
    place, colon, attribute = name.partition(":")
    if not colon or not place or not attribute:
        raise WorkloadError(
            f"the model {name!r} has no ':'",
            f"write 'torchvision:{name or 'resnet50'}' or 'package.module:function'",
        )
    default = DEFAULT_BATCH_SIZE.get(device.type, DEFAULT_BATCH_SIZE_ELSEWHERE)
    size = default if batch_size is None else batch_size
    if place == "torchvision":
        return TorchvisionModel(attribute, size)
    factory = _imported(place, attribute)
    if isinstance(factory, nn.Module):
        return lambda: private_copy(factory)
    if _takes_batch_size(factory):
        return _in_working_directory(partial(factory, batch_size=size))
    if batch_size is not None:
        raise WorkloadError(
            f"the function {name!r} takes no batch_size",
            "give it a parameter of that name, or leave the batch size out",
        )
    return _in_working_directory(factory)


def _imported(place: str, attribute: str) -> Any:
    with working_directory_on_path():
        try:
            module = importlib.import_module(place)
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the module {place!r} cannot be imported ({one_line(exc)})",
                "the working directory is on the path; check the name and run it alone with "
                f"python -c 'import {place}'",
            ) from exc
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise WorkloadError(
            f"the module {place!r} has no function {attribute!r}", did_you_mean(attribute, known)
        )
    return factory


def _in_working_directory(factory: ModelFactory) -> ModelFactory:
    """A factory may import further modules of the working directory when it is called."""

    def build() -> Any:
        with working_directory_on_path():
            return factory()

    return build


def _takes_batch_size(factory: ModelFactory) -> bool:
    try:
        return "batch_size" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # builtins have no signature
        return False


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy of a model.

    Raises:
        WorkloadError: the copy would differ from the model, or shares weights with it.
    """
    if any(getattr(part, "_compiled_call_impl", None) for part in model.modules()):
        raise WorkloadError(
            "model.compile() does not survive the copy that each backend gets",
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
