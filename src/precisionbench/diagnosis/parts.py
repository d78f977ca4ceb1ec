"""The time of a call by category: each kernel (on a CPU, each operation) has one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import attrs

from precisionbench.diagnosis.kernels import (
    MATRIX_KINDS,
    UNKNOWN,
    KernelClass,
    classify,
)
from precisionbench.results.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
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
# Where all of these are off, a GPU computes attention in the math kernel.
FUSED_ATTENTION_FLAGS = ("cuda.flash_sdp", "cuda.mem_efficient_sdp", "cuda.cudnn_sdp")
_NO_KERNEL = KernelClass(UNKNOWN, UNKNOWN, UNKNOWN)
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
# Names of operations without their namespace: convolutions (no conversions), words of which one
# makes the name that of a product, and how names of fused operations begin.
CONVOLUTION = re.compile(r"conv(?!er)")
_PRODUCTS = frozenset(
    [
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "addbmm",
        "mv",
        "addmv",
        "dot",
        "vdot",
        "matmul",
        "linear",
        "qlinear",
        "gemm",
    ]
)
_FUSED = (
    "_scaled_dot_product",
    "scaled_dot_product",
    "_flash_attention",
    "_efficient_attention",
    "_cudnn_rnn",
    "mkldnn_rnn_layer",
    "rnn_sequence",
    "_cudnn_attention",
    "quantized_lstm",
    "quantized_gru",
    "quantized_rnn",
)
# Kernels of TorchInductor are named after all operations that they replace.
_COMPILED = ("triton_", "cpp_fused")
COPIES = ("copy_", "_to_copy", "clone", "contiguous", "cat", "stack", "_foreach_copy_")
NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
_REDUCES = re.compile(
    r"pool|sum|mean|amax|amin|softmax|argm(ax|in)|norm(?!al(_|$))|var|std|prod|logcumsumexp"
)
# They allocate memory, give a tensor another shape, or only call others, and compute nothing.
_NO_WORK = frozenset(
    [
        *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty"),
        *("new_empty_strided", "resize_", "resize_as_", "set_", "to", "item", "lift_fresh"),
        *("view", "view_as", "_unsafe_view", "_reshape_alias", "as_strided", "as_strided_"),
        *("expand", "expand_as", "broadcast_to", "t", "numpy_T", "transpose", "transpose_"),
        *("permute", "movedim", "select", "slice", "narrow", "diagonal", "unfold", "split"),
        *("split_with_sizes", "unsafe_split", "chunk", "unsafe_chunk", "tensor_split", "unbind"),
        *("unsqueeze", "unsqueeze_", "squeeze", "squeeze_", "flatten", "unflatten", "reshape"),
        *("detach", "detach_", "alias", "conj", "_conj", "real", "imag", "view_as_real"),
        *("view_as_complex", "resolve_conj", "resolve_neg", "values", "indices"),
        *("crow_indices", "col_indices", "_local_scalar_dense"),
    ]
)
# Setting new memory to a value, and finding the elements of a mask, prepare the work of others.
_PREPARES = frozenset(
    [
        *("fill_", "zero_", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like"),
        *("new_zeros", "new_ones", "new_full", "arange", "nonzero"),
    ]
)
# It works itself, and calls pointwise operations to find where its bags begin.
_EMBEDDING_BAG = "_embedding_bag"
# Words of names of operations whose arithmetic or comparisons take longer than moving their data.
_COMPUTES = frozenset(
    [
        *("fft", "linalg", "cholesky", "triangular", "lu", "qr", "svd", "eigh", "inverse"),
        *("sort", "msort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode"),
        *("unique", "unique2", "quantile"),
    ]
)
# Modules that compute weights are under the first name in a path (`torch.nn.utils.parametrize`);
# the operation that older code calls in a hook of the layer has the second.
PARAMETRIZATIONS, _WEIGHT_NORM = "parametrizations", "_weight_norm"
# Namespaces of PyTorch's own operations; what those of other libraries do is not known.
_OF_PYTORCH = ("", "aten", "prims", "quantized", "quantized_decomposed", "torchao")
_ADDING = (
    *("scatter_add", "scatter_reduce", "index_add", "index_reduce", "index_put", "put_"),
    *("embedding_bag", "segment_reduce", "_index_put_impl_", "bincount"),
)
BYTES = {
    "float64": 8,
    "int64": 8,
    "complex64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    **dict.fromkeys(("int8", "uint8", "qint8", "quint8", "bool"), 1),
    **dict.fromkeys(("float8", "float8_e4m3fn", "float8_e5m2"), 1),
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

    On a CPU the time of such an operation is overhead and not the work of its kind. An operation
    that calls others does the work of its kind by itself if none of them is of that kind:
    `aten::addmm` copies its result into place, and `aten::linear` calls `aten::addmm`. One that
    only allocates memory, as `aten::hardswish` does, or casts an operand, as `aten::mul` of two
    dtypes does, works by itself, too.
    """
    inner = _categories_inside(evidence.operations)
    for operation in evidence.operations:
        called = inner.get((operation.name, *operation.parents))
        if called and not operation.kernels and not _works_itself(operation, called):
            yield attrs.evolve(operation, name=_WRAPPER)
        else:
            yield operation


def _categories_inside(operations: Iterable[Operation]) -> dict[tuple[str, ...], set[str]]:
    """The categories of all operations in each operation, by its name and those around it."""
    found: dict[tuple[str, ...], set[str]] = {}
    for operation in operations:
        category = category_by_name(operation)
        if category == OTHER or operation.short_name in _PREPARES:
            continue
        for depth in range(len(operation.parents)):
            found.setdefault(operation.parents[depth:], set()).add(category)
    return found


def _works_itself(operation: Operation, called: set[str]) -> bool:
    category = category_by_name(operation)
    if category in (COPY, CAST):
        return called.isdisjoint((COPY, CAST))
    return operation.short_name == _EMBEDDING_BAG or called.isdisjoint((category, MATRIX))


def category_by_name(operation: Operation) -> str:
    """The category of an operation's time by its name, without its kernels."""
    return category(operation, _NO_KERNEL)


def parts_of_operation(operation: Operation) -> Iterator[Part]:
    """Every kernel of an operation with its category; on a CPU the operation."""
    if not operation.kernels:
        yield Part(operation, "", category_by_name(operation), operation.time_s, _NO_KERNEL)
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
    if _REDUCES.search(name):
        return REDUCTION
    return POINTWISE if _is_pointwise(operation) else OTHER


def _is_pointwise(operation: Operation) -> bool:
    """Whether it reads and writes each element a few times, by its name."""
    namespace, _, name = operation.name.rpartition("::")
    if operation.place:  # an engine's layer, which moves its data also where torch makes a view
        return bool(_COMPUTES.isdisjoint(name.split("_")))
    is_known = namespace in _OF_PYTORCH and name not in _NO_WORK
    return bool(name) and is_known and _COMPUTES.isdisjoint(name.split("_"))


def moves_nothing(operation: Operation) -> bool:
    """Whether it gives a tensor another shape, or allocates memory, and launches no kernel."""
    return operation.short_name in _NO_WORK and not operation.kernels


def computes_weights(operation: Operation) -> bool:
    """Whether it computes a weight from other tensors: by its module, or by its name."""
    is_of_weights = PARAMETRIZATIONS in operation.layer.split(".")
    return is_of_weights or any(_WEIGHT_NORM in n for n in (operation.name, *operation.parents))


def is_matrix(operation: Operation) -> bool:
    """Whether it is a matrix operation: matmul, convolution, attention or a recurrent layer."""
    name = operation.short_name
    if name.startswith(_FUSED) or is_convolution(operation):
        return True
    return not name.startswith(_COMPILED) and not _PRODUCTS.isdisjoint(name.split("_"))


def is_convolution(operation: Operation) -> bool:
    """Whether it is a convolution, by its name."""
    return bool(CONVOLUTION.search(operation.short_name))


def is_cast(operation: Operation) -> bool:
    """Whether it copies to another dtype."""
    dtypes = {tensor.dtype for tensor in operation.inputs[:2]}
    name = operation.short_name
    return name in ("copy_", "_to_copy") and len(operation.inputs) > 1 and len(dtypes) > 1


def casts_up(operation: Operation) -> bool:
    """Whether it copies 16-bit numbers to float32 or float64."""
    if not is_cast(operation):
        return False
    result, source = operation.inputs[:2]
    return result.dtype in (FLOAT32, FLOAT64) and source.dtype in (FLOAT16, BFLOAT16)


def adds_by_index(operation: Operation) -> bool:
    """Whether it adds to elements that an index chooses: on a GPU with atomic additions."""
    return bool(addition_by_index(operation))


def addition_by_index(operation: Operation) -> str:
    """The outermost addition by an index among an operation and those around it; else empty."""
    names = (operation.name, *operation.parents)
    adding = [n for n in names if n.rpartition("::")[2].lstrip("_").startswith(_ADDING)]
    return adding[-1] if adding else ""


def time_by_category(parts: Iterable[Part]) -> dict[str, float]:
    """Seconds of a call by category, the longest first."""
    found: dict[str, float] = {}
    for part in parts:
        found[part.category] = found.get(part.category, 0.0) + part.time_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))
