"""Calibration data of INT8 engines, given as batches or as the name of a function."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from precisionbench._internal.importing import working_directory_on_path
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
    one_line,
)
from precisionbench.torchtools.tensors import Inputs, walk


def calibration_batches(
    backend: str, place: str | None, data: Sequence[Any] | None, args: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """INT8 calibration batches on the inputs' device, in their dtypes.

    Args:
        backend: its name, for messages.
        place: `package.module:function` that gives them; None where it is not named.
        data: the batches themselves; None where they are not given.
        args: arguments of the model, which are the only batch where there is no other.

    Returns:
        At least one batch; each holds the arguments of one call.

    Raises:
        SpecError: the function cannot be imported or called.
        PreparationError: there are none, or one has other shapes than the arguments.
    """
    given = batches_from(backend, place) if place else data
    if given is None:
        warnings.warn(
            "INT8 was calibrated on the benchmark's own inputs: its latency is valid, its "
            "numerical error is not; calibrate with real batches (calibration, or "
            "calibration_data in Python)",
            PrecisionBenchWarning,
            stacklevel=2,
        )
        return [args]
    batches = [calibration_batch(item, args, index) for index, item in enumerate(given)]
    if not batches:
        raise PreparationError(
            "there are no calibration batches to calibrate INT8 with",
            "give some, or leave them out to calibrate on the benchmark's own inputs",
        )
    return batches


def batches_from(backend: str, place: str) -> Any:
    """The calibration batches that a function returns.

    Args:
        backend: its name, for the message.
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
            f"{backend}: calibration={place} failed ({one_line(exc)})",
            "name it 'package.module:function'; it takes no argument and gives the batches",
        ) from exc


def calibration_batch(item: Any, args: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """One calibration batch as the engine's inputs are; engines read it by raw pointer.

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
