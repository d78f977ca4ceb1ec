"""Where the time of a call goes: each kernel (on a CPU, each operation) in a category."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from precisionbench.diagnosis.kernels import (
    CUDA_CORE,
    MATRIX_KINDS,
    UNKNOWN,
    KernelClass,
    classify,
)
from precisionbench.evidence import Evidence, Layer, Operation, Tensor

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
_MATRIX_WORDS = ("convolution", "conv_depthwise", "conv2d", "conv3d", "conv1d")
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
    return tuple(part for operation in _placed(evidence) for part in _parts(operation))


def _placed(evidence: Evidence) -> Iterator[Operation]:
    """A CPU's operations; of those that only call others the own time is nobody's work."""
    wrappers = {name for operation in evidence.operations for name in operation.parents}
    for operation in evidence.operations:
        wraps = not operation.kernels and operation.name in wrappers
        yield attrs.evolve(operation, name=_WRAPPER) if wraps else operation


def _parts(operation: Operation) -> Iterator[Part]:
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
    name = operation.name.rpartition("::")[2]
    if is_matrix(operation):
        # The small ones in a convolution move and pad; those in attention may be anything.
        moves = kernel.kind in ("pointwise", "copy", "reduction")
        return (_OF_KIND[kernel.kind] if moves else MATRIX) if kernel.kind != UNKNOWN else MATRIX
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
    name = operation.name.rpartition("::")[2]
    return (
        name in _PRODUCTS or any(word in name for word in _MATRIX_WORDS) or name.startswith(_FUSED)
    )


def is_cast(operation: Operation) -> bool:
    """Whether it copies into another dtype."""
    dtypes = {tensor.dtype for tensor in operation.inputs[:2]}
    name = operation.name.rpartition("::")[2]
    return name in ("copy_", "_to_copy") and len(operation.inputs) > 1 and len(dtypes) > 1


def time_by_category(parts: Iterable[Part]) -> dict[str, float]:
    """Seconds of a call by category, the longest first."""
    found: dict[str, float] = {}
    for part in parts:
        found[part.category] = found.get(part.category, 0.0) + part.time_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@attrs.frozen
class MatrixWork:
    """An operation that multiplies matrices, and what tensor cores ask of it.

    Attributes:
        operation: the operation.
        outputs: the tensors that its layer gave, where it is the only one in it.
        flops: of a call, 2 x multiply-add; None where that is not known.
        groups: of a convolution; 1 of everything else.
        sizes: the sizes that tensor cores want to be multiples of 8, by what they are.
        kernel_size: of a convolution, its largest; 0 of everything else.
        time_s: seconds of a call in its matrix kernels.
        around_s: seconds of a call in its other kernels: layout, casts.
        cuda_core_s: seconds of a call in kernels that are known to run on ordinary cores.
    """

    operation: Operation
    outputs: tuple[Tensor, ...]
    flops: float | None
    groups: int
    sizes: Mapping[str, int]
    kernel_size: int
    time_s: float
    around_s: float
    cuda_core_s: float

    @property
    def is_convolution(self) -> bool:
        """Whether it is one."""
        return self.kernel_size > 0

    @property
    def dtype(self) -> str:
        """Of its operands; `mixed` where they differ, empty where nothing tells."""
        told = {t.dtype for t in self.operation.inputs if "float" in t.dtype or t.dtype == "int8"}
        if told:
            return told.pop() if len(told) == 1 else "mixed"
        named = {classify(kernel.name).dtype for kernel in self.operation.kernels} - {UNKNOWN}
        found = named.pop() if len(named) == 1 else ""
        return "float32" if found == "tf32" else found

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What keeps 16-bit tensor cores from being used well; empty where nothing does."""
        found = [
            f"{name} {size} is no multiple of {_ALIGNMENT}"
            for name, size in self.sizes.items()
            if size % _ALIGNMENT and not self.is_stem
        ]
        if self.groups > 1:
            each = self.sizes.get("input channels", self.groups) // self.groups
            if each < _CHANNELS_OF_A_GROUP:
                found.insert(0, f"{self.groups} groups of {each} channels")
        return tuple(found)

    @property
    def is_stem(self) -> bool:
        """A first convolution over images: its few channels are normal, and it is one of many."""
        return self.sizes.get("input channels", _ALIGNMENT) <= _STEM_CHANNELS and self.groups == 1

    @property
    def elements(self) -> float:
        """Elements that a call must at least move: operands and result."""
        results = float(sum(math.prod(t.shape) for t in self.outputs))
        if not results:
            results = _product_elements(self.operation)
        return self.operation.count * (results + _elements(self.operation))


_ALIGNMENT = 8
_STEM_CHANNELS = 4
# With fewer channels in a group than this, a tensor core's tile is mostly empty.
_CHANNELS_OF_A_GROUP = 16
# Products of two activations: their sizes are not the model's to choose.
_OF_WEIGHTS = ("mm", "addmm", "linear", "mv", "addmv", "_scaled_mm")


def _elements(operation: Operation) -> float:
    return float(sum(math.prod(t.shape) for t in operation.inputs))


def _product_elements(operation: Operation) -> float:
    matrices = [t.shape for t in operation.inputs if len(t.shape) >= 2][-2:]
    if len(matrices) < 2:
        return 0.0
    return math.prod(matrices[0][:-1]) * float(matrices[1][-1])


def matrix_work(evidence: Evidence) -> tuple[MatrixWork, ...]:
    """Every operation of a call that multiplies matrices."""
    layers = {layer.path: layer for layer in evidence.layers}
    by_layer: dict[str, list[Operation]] = {}
    for operation in _placed(evidence):
        if is_matrix(operation) or _runs_matrix_kernels(operation):
            by_layer.setdefault(operation.layer, []).append(operation)
    found: list[MatrixWork] = []
    for path, operations in by_layer.items():
        layer = layers.get(path)
        outputs = layer.outputs if layer is not None and len(operations) == 1 else ()
        flops = _flops_of(operations, layer.flops if layer is not None else None)
        found += [_work(o, outputs, f) for o, f in zip(operations, flops, strict=True)]
    return tuple(found)


def _runs_matrix_kernels(operation: Operation) -> bool:
    return any(classify(kernel.name).kind in MATRIX_KINDS for kernel in operation.kernels)


def _flops_of(operations: Sequence[Operation], counted: float | None) -> list[float | None]:
    """FLOPs of each operation of a layer: from its shapes, or its share of what was counted."""
    known = [known_flops(operation) for operation in operations]
    if all(flops is not None for flops in known) or not counted:
        return known
    left = counted - sum(flops or 0.0 for flops in known)
    weights = [
        0.0 if flops is not None else _convolution_weight(operation)
        for flops, operation in zip(known, operations, strict=True)
    ]
    unknown = sum(flops is None for flops in known)
    if left <= 0 or (not all(w for w, f in zip(weights, known, strict=True) if f is None)):
        return known if unknown > 1 or left <= 0 else [left if f is None else f for f in known]
    total = sum(weights)
    return [
        left * weight / total if flops is None else flops
        for flops, weight in zip(known, weights, strict=True)
    ]


def _convolution_weight(operation: Operation) -> float:
    """What the FLOPs of convolutions of one layer are in proportion to; 0 of other operations."""
    x, weight = _convolved(operation)
    return operation.count * math.prod(x) / x[1] * math.prod(weight) if x else 0.0


def _convolved(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of a convolution's input and weight; empty of other operations."""
    name = operation.name.rpartition("::")[2]
    shapes = [tensor.shape for tensor in operation.inputs]
    if not any(word in name for word in _MATRIX_WORDS):
        return (), ()
    return next(((a, b) for a, b in _pairs(shapes) if len(a) == len(b) >= 3), ((), ()))


def _work(operation: Operation, outputs: tuple[Tensor, ...], flops: float | None) -> MatrixWork:
    parts = list(_parts(operation))
    matrix = [part for part in parts if part.category == MATRIX]
    groups, sizes, kernel_size = _geometry(operation)
    return MatrixWork(
        operation=operation,
        outputs=outputs,
        flops=flops,
        groups=groups,
        sizes=sizes,
        kernel_size=kernel_size,
        time_s=sum(part.time_s for part in matrix),
        around_s=sum(part.time_s for part in parts if part.category != MATRIX),
        cuda_core_s=sum(p.time_s for p in matrix if p.kernel_class.unit == CUDA_CORE),
    )


def _geometry(operation: Operation) -> tuple[int, dict[str, int], int]:
    x, weight = _convolved(operation)
    if x:
        kernel_size = max(weight[2:])
        if any("transpose" in name for name in (operation.name, *operation.parents)):
            return 1, {"input channels": x[1], "output channels": weight[1]}, kernel_size
        groups = max(1, x[1] // weight[1]) if weight[1] else 1
        return groups, {"input channels": x[1], "output channels": weight[0]}, kernel_size
    if operation.name.rpartition("::")[2] in _OF_WEIGHTS:
        matrices = [t.shape for t in operation.inputs if len(t.shape) >= 2][-2:]
        if len(matrices) == 2 and len(matrices[0]) == len(matrices[1]):
            return 1, {"inner size": matrices[0][-1], "output size": matrices[1][-1]}, 0
    return 1, {}, 0


def _pairs(shapes: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for i, first in enumerate(shapes):
        for second in shapes[i + 1 :]:
            yield first, second


def known_flops(operation: Operation) -> float | None:
    """FLOPs of products and attention from their shapes, of a call; None for other operations."""
    name = operation.name.rpartition("::")[2]
    shapes = [t.shape for t in operation.inputs]
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        matrices = [shape for shape in shapes if len(shape) >= 2][-2:]
        if len(matrices) == 2 and len(matrices[0]) == len(matrices[1]):
            return operation.count * 2.0 * math.prod(matrices[0]) * matrices[1][-1]
        return None
    if name.startswith(_ATTENTION) and len(shapes) > 1 and len(shapes[0]) == len(shapes[1]) == 4:
        query, key = shapes[:2]
        length = key[2] if name.startswith("_scaled") else key[1]  # (B, H, L, D) or (B, L, H, D)
        return operation.count * 4.0 * math.prod(query) * length
    return None


_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "_cudnn_attention")


def layer_bytes(layer: Layer) -> float:
    """Bytes that a module must at least move in a call: inputs, outputs, parameters."""
    tensors = (*layer.inputs, *layer.outputs)
    moved = sum(math.prod(t.shape) * BYTES.get(t.dtype, 4) for t in tensors) * layer.calls
    return moved + sum(math.prod(t.shape) * BYTES.get(t.dtype, 4) for t in layer.parameters)
