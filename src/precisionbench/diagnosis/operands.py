"""In which dtypes the operands of a matrix operation are, by its arguments and its name."""

from __future__ import annotations

import re

from precisionbench.results.dtypes import FLOAT8, FLOAT16, FLOAT32, INT8
from precisionbench.results.evidence import Operation, Tensor

# A quantised recurrent layer holds packed weights of either kind, and its name does not say which.
PACKED = "int8 or float16"
# Products that dequantise their weights to the dtype of the activations, and multiply in it.
_WEIGHT_ONLY = re.compile(r"_weight_int[48]pack_mm")
# Dtypes that count as another one: of the real and imaginary parts, or of codes.
_SAME = {
    "complex32": FLOAT16,
    "complex64": FLOAT32,
    "complex128": "float64",
    **dict.fromkeys(("uint8", "qint8", "quint8", "c10::qint8", "c10::quint8"), INT8),
}
_OPERANDS = 2


def operand_dtypes(operation: Operation) -> set[str]:
    """The dtypes of the two operands of a product or convolution, without biases and scales.

    Args:
        operation: a matrix operation.

    Returns:
        Their names; more than one where they differ, empty where they are not known. The profiler
        does not record packed weights, so the name of a quantised operation decides.
    """
    if dtype := _packed_dtype(operation):
        return {dtype}
    tensors = [tensor for tensor in operation.inputs if _is_number(tensor)]
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1][:_OPERANDS]
    return {_named(tensor.dtype) for tensor in matrices or tensors[:_OPERANDS]}


def multiplied_dtypes(operation: Operation) -> set[str]:
    """As `operand_dtypes`; of a product with quantised weights, the dtype that it multiplies in.

    Args:
        operation: a matrix operation.
    """
    if _WEIGHT_ONLY.search(operation.name) and operation.inputs:
        return {_named(operation.inputs[0].dtype)}
    return operand_dtypes(operation)


def _packed_dtype(operation: Operation) -> str:
    namespace, _, name = operation.name.rpartition("::")
    if name.startswith("quantized_"):
        return PACKED
    if namespace == "quantized":
        return FLOAT16 if "fp16" in name else INT8
    return ""


def _is_number(tensor: Tensor) -> bool:
    return any(kind in tensor.dtype for kind in ("float", "int", "complex"))


def _named(dtype: str) -> str:
    return FLOAT8 if dtype.startswith(FLOAT8) else _SAME.get(dtype, dtype)
