"""Exports a model to an ONNX file by one of torch's two exporters."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from precisionbench.backends.flat_model import FlatModel
from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line
from precisionbench.torchtools.global_state import functions_restored

Exporter = Literal["dynamo", "torchscript"]
# An ONNX file has at most 2 GiB. ONNX Runtime quantises models of one file only.
_MOST_BYTES = 1_900_000_000


def default_exporter() -> Exporter:
    """`dynamo`, which is torch's default from 2.9 on, where onnxscript is installed for it."""
    return "dynamo" if importlib.util.find_spec("onnxscript") else "torchscript"


def export(model: FlatModel, file: Path, exporter: Exporter) -> None:
    """Write a model with static shapes to an ONNX file.

    Args:
        model: its inputs are exported as `input_0`, `input_1`, ...
        file: to be written; the weights of a large model are in a second file beside it.
        exporter: of torch.

    Raises:
        PreparationError: the exporter cannot export it.
    """
    options: dict[str, Any] = {
        "input_names": [f"input_{index}" for index in range(len(model.inputs))],
        "output_names": [f"output_{index}" for index in range(len(model.outputs))],
        "dynamo": False,
    }
    if exporter == "dynamo":
        options |= {"dynamo": True, "external_data": _is_large(model), "verbose": False}
    with functions_restored(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters announce changes of their own interface
        try:
            torch.onnx.export(model.module, model.inputs, str(file), **options)
        except FOREIGN_ERRORS as exc:
            other = "torchscript" if exporter == "dynamo" else "dynamo"
            raise PreparationError(
                f"torch's exporter {exporter} cannot export the model to ONNX ({one_line(exc)})",
                f"try exporter={other}, or change what the message names",
            ) from exc


def _is_large(model: FlatModel) -> bool:
    tensors = itertools.chain(model.module.parameters(), model.module.buffers())
    return sum(tensor.nbytes for tensor in tensors) > _MOST_BYTES
