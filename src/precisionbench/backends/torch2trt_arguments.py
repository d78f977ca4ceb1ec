"""Arguments and results of a model as torch2trt takes them, and what it would get wrong."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from precisionbench._internal.importing import working_directory_on_path
from precisionbench.errors import FOREIGN_ERRORS, PreparationError, SpecError, one_line
from precisionbench.torchtools.tensors import Inputs, walk

# The dtypes of inputs in torch2trt's Flattener; it would make constants of any other tensors.
_INPUT_DTYPES = (torch.float16, torch.float32, torch.bool)


class _PositionalArguments(nn.Module):
    """A model called with positional arguments only, which is how torch2trt calls it."""

    def __init__(self, model: nn.Module, count: int, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.count, self.names = model, count, tuple(names)

    def forward(self, *args: Any) -> Any:
        named = zip(self.names, args[self.count :], strict=True)
        return self.model(*args[: self.count], **dict(named))


def with_positional_arguments(
    model: nn.Module, inputs: Inputs
) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model, and its arguments, without keyword arguments.

    Args:
        model: the model.
        inputs: its arguments.
    """
    inputs = inputs.map(torch.Tensor.contiguous)  # the engine is given raw pointers
    if not inputs.kwargs:
        return model, inputs.args
    wrapped = _PositionalArguments(model, len(inputs.args), list(inputs.kwargs)).eval()
    return wrapped, (*inputs.args, *inputs.kwargs.values())


def tensor_names(torch2trt: Any, args: Any, expected: Any) -> dict[str, list[str]]:
    """The names of the engine's inputs and outputs, as keyword arguments of torch2trt.

    Args:
        torch2trt: the package.
        args: arguments of the model.
        expected: what the model returns for them.
    """

    def numbered(kind: str, value: Any) -> list[str]:
        return [f"{kind}_{index}" for index in range(torch2trt.Flattener.from_value(value).size)]

    return {
        "input_names": numbered("input", args),
        "output_names": numbered("output", expected),
    }


def check_inputs(torch2trt: Any, args: tuple[Any, ...]) -> None:
    """Refuse inputs that torch2trt would not find, or make constants of.

    Args:
        torch2trt: the package.
        args: arguments of the model.

    Raises:
        PreparationError: which inputs, and what to do.
    """
    for path, tensor in walk(args):
        if tensor.dtype not in _INPUT_DTYPES:
            raise PreparationError(
                f"torch2trt would turn the {tensor.dtype} input {path} into a constant",
                "use another backend for models with integer inputs",
            )
    if paths := _overlooked(torch2trt, args):
        raise PreparationError(
            f"torch2trt finds inputs in tuples, lists and dicts only, and the tensors are at "
            f"{', '.join(paths)}",
            "wrap the model so that it takes these",
        )


def check_outputs(torch2trt: Any, expected: Any) -> None:
    """Refuse outputs that torch2trt would not return.

    Args:
        torch2trt: the package.
        expected: what the model returns.

    Raises:
        PreparationError: which outputs, and what to do.
    """
    if paths := _overlooked(torch2trt, expected):
        raise PreparationError(
            f"torch2trt returns floating-point tensors in tuples, lists and dicts only, and "
            f"the model's output has tensors at {', '.join(paths) or 'no place'}",
            "wrap the model so that it returns these",
        )


def _overlooked(torch2trt: Any, value: Any) -> list[str]:
    """Where a value's tensors are, unless torch2trt's Flattener finds every one of them."""
    paths = [path for path, _ in walk(value)]
    return paths if torch2trt.Flattener.from_value(value).size != len(paths) else []


def check_shapes(output: Any, expected: Any) -> None:
    """Refuse an engine whose outputs have other shapes than the model's.

    torch2trt 0.4 with TensorRT 8 returned batch 1 for batch 3 (torch2trt#740).

    Args:
        output: what the engine returns.
        expected: what the model returns.

    Raises:
        PreparationError: the shapes differ.
    """
    got = [(path, tuple(tensor.shape)) for path, tensor in walk(output)]
    want = [(path, tuple(tensor.shape)) for path, tensor in walk(expected)]
    if dict(got) != dict(want):  # torch2trt gives dicts back in the order of their keys
        raise PreparationError(
            f"the engine gives outputs {got} where the model gives {want}",
            "upgrade torch2trt to 0.5.0",
        )


def batches_from(place: str) -> Any:
    """The calibration batches that a function returns.

    Args:
        place: `package.module:function`.

    Raises:
        SpecError: it cannot be imported or called.
    """
    module, _, function = place.partition(":")
    try:
        with working_directory_on_path():
            return getattr(importlib.import_module(module), function)()
    except FOREIGN_ERRORS as exc:
        raise SpecError(
            f"torch2trt: calibration={place} failed ({one_line(exc)})",
            "name it 'package.module:function'; it takes no argument and gives the batches",
        ) from exc


def calibration_batch(item: Any, args: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """One calibration batch as the engine's inputs are; TensorRT reads it by raw pointer.

    Args:
        item: a tensor, or a tuple of arguments.
        args: arguments of the model, whose shapes and dtypes it must have.
        index: its number, for messages.

    Raises:
        PreparationError: its shapes differ from those of the arguments.
    """
    batch = item if isinstance(item, tuple) else (item,)
    want = [tensor for _, tensor in walk(args)]
    got = [tensor for _, tensor in walk(batch)]
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in want]:
        raise PreparationError(
            f"calibration batch {index} has shapes {[tuple(t.shape) for t in got]} where the "
            f"engine's inputs have {[tuple(t.shape) for t in want]}",
            "give batches of the benchmark's own batch size",
        )
    like = iter(want)

    def prepared(tensor: torch.Tensor) -> torch.Tensor:
        target = next(like)
        return tensor.to(target.device, target.dtype).contiguous()

    return Inputs(batch).map(prepared).args
