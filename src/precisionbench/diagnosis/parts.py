"""Where the time of a call goes: each kernel (on a CPU, each operation) in a category."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from precisionbench.diagnosis.kernels import (
    MATRIX_KINDS,
    UNKNOWN,
    KernelClass,
    classify,
)
from precisionbench.results.evidence import Evidence, Operation

# Categories of time.
MATRIX, LAYOUT, CAST, COPY, NORM, POINTWISE, REDUCTION, OTHER = (
    "matrix",
    "layout",
    "cast",
    "copy",
    "norm",
    "pointwise",
    "reduction",
    "other",
)
_WRAPPER = "(calls others)"
# In which the arithmetic is little and the time is that of memory.
MEMORY_BOUND = (LAYOUT, CAST, COPY, NORM, POINTWISE, REDUCTION)
_OF_KIND = {
    **dict.fromkeys(MATRIX_KINDS, MATRIX),
    "layout": LAYOUT,
    "norm": NORM,
    "copy": COPY,
    "pool": REDUCTION,
    "reduction": REDUCTION,
    "pointwise": POINTWISE,
}
# Names of torch's operations, without `aten::`, by what they begin or end with.
CONVOLUTIONS = ("convolution", "conv_depthwise", "conv2d", "conv3d", "conv1d")
_PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "addbmm",
    "mv",
    "addmv",
    "dot",
    "linear",
    "_scaled_mm",
)
_FUSED = (
    "_scaled_dot_product",
    "_flash_attention",
    "_efficient_attention",
    "_cudnn_rnn",
    "mkldnn_rnn_layer",
    "_cudnn_attention",
)
_COPIES = ("copy_", "_to_copy", "clone", "contiguous", "cat", "stack", "_foreach_copy_")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
_REDUCTIONS = ("pool", "sum", "mean", "amax", "amin", "softmax", "argmax", "norm", "var", "std")
BYTES = {
    "float64": 8,
    "int64": 8,
    "complex64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
}


@attrs.frozen
class Part:
    """A share of a call's time.

    Attributes:
        operation: whose it is.
        kernel: the kernel's name; empty on a CPU.
        category: where the time goes.
        time_s: seconds in a call.
        kernel_class: what the kernel's name says.
    """

    operation: Operation
    kernel: str
    category: str
    time_s: float
    kernel_class: KernelClass


def parts_of(evidence: Evidence) -> tuple[Part, ...]:
    """Every kernel of a call with its category; on a CPU every operation."""
    return tuple(part for operation in placed(evidence) for part in parts_of_one(operation))


def placed(evidence: Evidence) -> Iterator[Operation]:
    """A CPU's operations; of those that only call others the own time is nobody's work."""
    wrappers = {name for operation in evidence.operations for name in operation.parents}
    for operation in evidence.operations:
        wraps = not operation.kernels and operation.name in wrappers
        yield attrs.evolve(operation, name=_WRAPPER) if wraps else operation


def parts_of_one(operation: Operation) -> Iterator[Part]:
    """Every kernel of an operation with its category; on a CPU the operation."""
    if not operation.kernels:
        nothing = KernelClass(UNKNOWN, UNKNOWN, UNKNOWN)
        yield Part(operation, "", category(operation, nothing), operation.time_s, nothing)
    for kernel in operation.kernels:
        found = classify(kernel.name)
        yield Part(operation, kernel.name, category(operation, found), kernel.time_s, found)


def category(operation: Operation, kernel: KernelClass) -> str:
    """Where the time of a kernel goes: the operation says it better than most names do.

    Args:
        operation: that launched it.
        kernel: what its name says.
    """
    if kernel.kind == "layout":
        return LAYOUT
    if operation.name == _WRAPPER:
        return OTHER
    name = operation.short_name
    if is_matrix(operation):
        # The small ones in a convolution move and pad; those in attention may be anything.
        moves = kernel.kind in ("pointwise", "copy", "reduction")
        return _OF_KIND[kernel.kind] if moves else MATRIX
    if name in _COPIES:
        return CAST if is_cast(operation) else COPY
    if any(word in name for word in _NORMS):
        return NORM
    if kernel.kind in _OF_KIND:
        return _OF_KIND[kernel.kind]
    if any(word in name for word in _REDUCTIONS):
        return REDUCTION
    return POINTWISE if name else OTHER


def is_matrix(operation: Operation) -> bool:
    """Whether it multiplies matrices: products, convolutions, attention, recurrent layers."""
    name = operation.short_name
    return (
        name in _PRODUCTS or any(word in name for word in CONVOLUTIONS) or name.startswith(_FUSED)
    )


def is_cast(operation: Operation) -> bool:
    """Whether it copies into another dtype."""
    dtypes = {tensor.dtype for tensor in operation.inputs[:2]}
    name = operation.short_name
    return name in ("copy_", "_to_copy") and len(operation.inputs) > 1 and len(dtypes) > 1


def time_by_category(parts: Iterable[Part]) -> dict[str, float]:
    """Seconds of a call by category, the longest first."""
    found: dict[str, float] = {}
    for part in parts:
        found[part.category] = found.get(part.category, 0.0) + part.time_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))
