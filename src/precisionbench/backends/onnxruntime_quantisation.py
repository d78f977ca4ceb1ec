"""Static INT8 quantisation of an ONNX file by ONNX Runtime's own quantiser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal.importing import import_engine
from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line

INSTALL_ONNX = "pip install onnx"


def quantise(file: Path, batches: Sequence[Sequence[torch.Tensor]], unsigned: bool) -> Path:
    """Write the model with quantised weights and activations beside its file.

    Args:
        file: of the float32 model.
        batches: calibration batches, each with the tensors of `FlatModel.inputs`.
        unsigned: whether activations are unsigned, for which the kernels of CPUs are made; those
            of TensorRT are signed.

    Returns:
        The new file.

    Raises:
        BackendUnavailableError: onnx is missing, which the quantiser needs.
        PreparationError: the quantiser fails.
    """
    quantization = import_engine("onnxruntime.quantization", "onnx for INT8", INSTALL_ONNX)
    shapes = import_engine(
        "onnxruntime.quantization.shape_inference", "onnx for INT8", INSTALL_ONNX
    )
    prepared, written = file.with_suffix(".prepared.onnx"), file.with_suffix(".int8.onnx")
    kinds = quantization.QuantType
    try:
        shapes.quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(written),
            _reader(quantization, _named(prepared, batches)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=kinds.QUInt8 if unsigned else kinds.QInt8,
            weight_type=kinds.QInt8,
        )
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"ONNX Runtime cannot quantise the model ({one_line(exc)})",
            "try the other exporter, or measure it in fp16 or fp32",
        ) from exc
    return written


def _named(file: Path, batches: Sequence[Sequence[torch.Tensor]]) -> Iterator[dict[str, Any]]:
    """Batches by the names of the model's inputs; inputs that it does not use are left out."""
    onnx = import_engine("onnx", "onnx for INT8", INSTALL_ONNX)
    read = {found.name for found in onnx.load(str(file), load_external_data=False).graph.input}
    for batch in batches:
        named = {f"input_{index}": tensor for index, tensor in enumerate(batch)}
        yield {name: tensor.cpu().numpy() for name, tensor in named.items() if name in read}


def _reader(quantization: Any, batches: Iterator[dict[str, Any]]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    return Reader()
