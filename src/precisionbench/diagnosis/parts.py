"""The time of a call by category: each kernel (on a CPU, each operation) has one."""

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
# Categories with little arithmetic, whose time is bound by memory bandwidth.
MEMORY_BOUND = (LAYOUT, CAST, COPY, NORM, POINTWISE, REDUCTION)
_CATEGORY_OF_KIND = {
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
COPIES = ("copy_", "_to_copy", "clone", "contiguous", "cat", "stack", "_foreach_copy_")
NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
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
    """A part of a call's time: a kernel of an operation, or on a CPU the operation.

    Attributes:
        operation: the operation.
        kernel: name of the kernel; empty on a CPU.
        category: category of the time.
        time_s: seconds in a call.
        kernel_class: class of the kernel by its name.
    """

    operation: Operation
    kernel: str
    category: str
    time_s: float
    kernel_class: KernelClass


def parts_of(evidence: Evidence) -> tuple[Part, ...]:
    """Every kernel of a call with its category; on a CPU every operation."""
    return tuple(
        part for operation in own_operations(evidence) for part in parts_of_operation(operation)
    )


def own_operations(evidence: Evidence) -> Iterator[Operation]:
    """All operations; one that only calls others gets a name of its own.

    On a CPU the time of such an operation is overhead and not the work of its kind.
    """
    wrappers = {name for operation in evidence.operations for name in operation.parents}
    for operation in evidence.operations:
        wraps = not operation.kernels and operation.name in wrappers
        yield attrs.evolve(operation, name=_WRAPPER) if wraps else operation


def parts_of_operation(operation: Operation) -> Iterator[Part]:
    """Every kernel of an operation with its category; on a CPU the operation."""
    if not operation.kernels:
        nothing = KernelClass(UNKNOWN, UNKNOWN, UNKNOWN)
        yield Part(operation, "", category(operation, nothing), operation.time_s, nothing)
    for kernel in operation.kernels:
        found = classify(kernel.name)
        yield Part(operation, kernel.name, category(operation, found), kernel.time_s, found)


def category(operation: Operation, kernel: KernelClass) -> str:
    """The category of a kernel: by its operation, where the name of the kernel is ambiguous.

    Args:
        operation: the operation that launched it.
        kernel: class of the kernel by its name.
    """
    if kernel.kind == "layout":
        return LAYOUT
    if operation.name == _WRAPPER:
        return OTHER
    name = operation.short_name
    if is_matrix(operation):
        # Pointwise kernels, copies and reductions of a matrix operation prepare its operands.
        moves = kernel.kind in ("pointwise", "copy", "reduction")
        return _CATEGORY_OF_KIND[kernel.kind] if moves else MATRIX
    if name in COPIES:
        return CAST if is_cast(operation) else COPY
    if any(word in name for word in NORMS):
        return NORM
    if kernel.kind in _CATEGORY_OF_KIND:
        return _CATEGORY_OF_KIND[kernel.kind]
    if any(word in name for word in _REDUCTIONS):
        return REDUCTION
    return POINTWISE if name else OTHER


def is_matrix(operation: Operation) -> bool:
    """Whether it is a matrix operation: matmul, convolution, attention or a recurrent layer."""
    name = operation.short_name
    return (
        name in _PRODUCTS or any(word in name for word in CONVOLUTIONS) or name.startswith(_FUSED)
    )


def is_cast(operation: Operation) -> bool:
    """Whether it copies to another dtype."""
    dtypes = {tensor.dtype for tensor in operation.inputs[:2]}
    name = operation.short_name
    return name in ("copy_", "_to_copy") and len(operation.inputs) > 1 and len(dtypes) > 1


def time_by_category(parts: Iterable[Part]) -> dict[str, float]:
    """Seconds of a call by category, the longest first."""
    found: dict[str, float] = {}
    for part in parts:
        found[part.category] = found.get(part.category, 0.0) + part.time_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))
