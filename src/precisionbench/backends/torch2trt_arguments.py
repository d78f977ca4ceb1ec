"""Arguments and results of a model as torch2trt takes them, and what it would get wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from precisionbench.errors import PreparationError
from precisionbench.torchtools.agreement import compare_tensors, cpu_copies
from precisionbench.torchtools.tensors import Inputs, walk

# The dtypes of inputs in torch2trt's Flattener; it would make constants of any other tensors.
_INPUT_DTYPES = (torch.float16, torch.float32, torch.bool)
# An engine holds constants if its error for other inputs is more than all of these: rounding, a
# multiple of its error for the inputs that it was made with, and a share of the change.
_ROUNDING, _TIMES, _SHARE_OF_CHANGE = 1e-3, 10, 0.2


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


def check_other_inputs(
    engine: Callable[..., Any], model: nn.Module, args: tuple[Any, ...], output: Any
) -> None:
    """Refuse an engine that holds results of the inputs that it was made with.

    If torch2trt has no converter for an operation, and a later operation reads the result, the
    result becomes a constant of the engine. The output is then right for these inputs only, and the
    engine is fast because it computes less.

    Args:
        engine: a call of the engine.
        model: the model.
        args: its arguments, with which the engine was made.
        output: what the engine gives for them; the next call may overwrite it.

    Raises:
        PreparationError: the outputs for other inputs differ.
    """
    known, before = cpu_copies(output), cpu_copies(model(*args))
    others = Inputs(args).map(_rolled).args
    found, after = cpu_copies(engine(*others)), cpu_copies(model(*others))
    error, first, change = _error(found, after), _error(known, before), _error(before, after)
    if error > max(_ROUNDING, _TIMES * first, _SHARE_OF_CHANGE * change):
        raise PreparationError(
            f"the engine is right for the inputs that it was made with (error {first:.1e}) and "
            f"wrong for others (error {error:.1e}): torch2trt has stored results of operations "
            "without a converter as constants",
            "use use_onnx=true, or the backend torch-tensorrt",
        )


def _rolled(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in another order, so that they stay in the range of a calibration."""
    if not tensor.is_floating_point():
        return tensor.clone()
    flat = tensor.flatten()
    return flat.roll(max(1, flat.numel() // 2)).view_as(tensor).contiguous()


def _error(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The relative L2 error; 0 where it is not known."""
    return compare_tensors(ours, theirs).relative_l2 or 0.0
