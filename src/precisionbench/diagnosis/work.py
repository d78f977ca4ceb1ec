"""Matrix operations of a call: FLOPs, dtypes, and obstacles to using tensor cores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import attrs

from precisionbench.diagnosis.kernels import CUDA_CORE, MATRIX_KINDS, UNKNOWN, classify
from precisionbench.diagnosis.operands import multiplied_dtypes, operand_dtypes
from precisionbench.diagnosis.parts import (
    MATRIX,
    is_convolution,
    is_matrix,
    own_operations,
    parts_of_operation,
)
from precisionbench.results.evidence import Evidence, Operation, Tensor


@attrs.frozen
class MatrixWork:
    """A matrix multiplication, convolution, attention or recurrent operation.

    Attributes:
        operation: the operation.
        outputs: outputs of its layer, if it is the only matrix operation in the layer.
        flops: FLOPs of a call, 2 x multiply-add; None where they are not known.
        groups: groups of a convolution; 1 for other operations.
        sizes: the sizes that should be multiples of 8 for tensor cores, by their names.
        kernel_size: the largest kernel size of a convolution; 0 for other operations.
        time_s: seconds of a call in its GEMM/conv kernels.
        other_kernels_s: seconds of a call in its other kernels: layout conversions, casts.
        cuda_core_s: seconds of a call in kernels that are known to use CUDA cores.
        has_stored_weights: whether the row claims that its weights are stored in fewer bits, so
            that a product which dequantises them has the dtype that it multiplies in.
    """

    operation: Operation
    outputs: tuple[Tensor, ...]
    flops: float | None
    groups: int
    sizes: Mapping[str, int]
    kernel_size: int
    time_s: float
    other_kernels_s: float
    cuda_core_s: float
    has_stored_weights: bool = False

    @property
    def is_attention(self) -> bool:
        """Whether it is a fused attention operation."""
        return self.operation.short_name.startswith(_ATTENTION)

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.kernel_size > 0

    @property
    def dtype(self) -> str:
        """Dtype of its operands; `mixed` where they differ, empty where it is not known."""
        of = multiplied_dtypes if self.has_stored_weights else operand_dtypes
        dtypes = of(self.operation)
        if dtypes:
            return dtypes.pop() if len(dtypes) == 1 else "mixed"
        named = {classify(kernel.name).dtype for kernel in self.operation.kernels} - {UNKNOWN}
        found = named.pop() if len(named) == 1 else ""
        return "float32" if found == "tf32" else found

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What keeps 16-bit tensor cores from being used efficiently; empty where nothing does."""
        found = [
            f"{name} {size} is not a multiple of {_ALIGNMENT}"
            for name, size in self.sizes.items()
            if size % _ALIGNMENT and not self.is_stem
        ]
        if self.groups > 1:
            each = self.sizes.get("input channels", self.groups) // self.groups
            if each < _MIN_GROUP_CHANNELS:
                found.insert(0, f"{self.groups} groups of {each} channels")
        return tuple(found)

    @property
    def obstacle_text(self) -> str:
        """Its layer with its first obstacle, for an operation that has one."""
        return f"{self.operation.layer or self.operation.name} ({self.obstacles[0]})"

    @property
    def is_stem(self) -> bool:
        """Whether it is a first convolution over images, for which few channels are normal."""
        return self.sizes.get("input channels", _ALIGNMENT) <= _STEM_CHANNELS and self.groups == 1

    @property
    def elements(self) -> float:
        """Elements that a call must move at least: operands and result."""
        results = float(sum(math.prod(t.shape) for t in self.outputs))
        if not results:
            results = _product_elements(self.operation)
        return self.operation.count * (results + _elements(self.operation))


_ALIGNMENT = 8
_STEM_CHANNELS = 4
# With fewer channels in a group than this, a tensor core's tile is mostly empty.
_MIN_GROUP_CHANNELS = 16
# Products with weights; the sizes of products of two activations depend on the inputs.
_WEIGHT_PRODUCTS = ("mm", "addmm", "linear", "mv", "addmv", "_scaled_mm")


def _elements(operation: Operation) -> float:
    return float(sum(math.prod(t.shape) for t in operation.inputs))


def _multiplied(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of an operation's last two matrix arguments; empty without two."""
    matrices = [t.shape for t in operation.inputs if len(t.shape) >= 2][-2:]
    return (matrices[0], matrices[1]) if len(matrices) == 2 else ((), ())


def _product_elements(operation: Operation) -> float:
    first, second = _multiplied(operation)
    return math.prod(first[:-1]) * float(second[-1]) if second else 0.0


def matrix_work(evidence: Evidence) -> tuple[MatrixWork, ...]:
    """Every matrix operation of a call."""
    layers = {layer.path: layer for layer in evidence.layers}
    by_layer: dict[str, list[Operation]] = {}
    for operation in own_operations(evidence):
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
    """FLOPs of each operation of a layer: from its shapes, or its share of the counted FLOPs."""
    known = [known_flops(operation) for operation in operations]
    missing = [o for o, flops in zip(operations, known, strict=True) if flops is None]
    left = (counted or 0.0) - sum(flops or 0.0 for flops in known)
    weights = [_convolution_weight(o) for o in missing] if len(missing) > 1 else [1.0]
    if not missing or left <= 0 or not all(weights):
        return known
    shares = iter([left * weight / sum(weights) for weight in weights])
    return [next(shares) if flops is None else flops for flops in known]


def _convolution_weight(operation: Operation) -> float:
    """Proportional to the FLOPs of convolutions of one layer; 0 for other operations."""
    x, weight = _convolved(operation)
    return operation.count * math.prod(x) / x[1] * math.prod(weight) if x else 0.0


def _convolved(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of a convolution's input and weight; empty for other operations."""
    shapes = [tensor.shape for tensor in operation.inputs]
    if not is_convolution(operation):
        return (), ()
    return next(((a, b) for a, b in _pairs(shapes) if len(a) == len(b) >= 3), ((), ()))


def _work(operation: Operation, outputs: tuple[Tensor, ...], flops: float | None) -> MatrixWork:
    parts = list(parts_of_operation(operation))
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
        other_kernels_s=sum(part.time_s for part in parts if part.category != MATRIX),
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
    if operation.short_name in _WEIGHT_PRODUCTS:
        first, second = _multiplied(operation)
        if second and len(first) == len(second):
            return 1, {"inner size": first[-1], "output size": second[-1]}, 0
    return 1, {}, 0


def _pairs(shapes: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for i, first in enumerate(shapes):
        for second in shapes[i + 1 :]:
            yield first, second


def matmul_sizes(operation: Operation) -> tuple[int, int, int] | None:
    """Rows, inner size and columns of a matmul, from its shapes; None for other operations."""
    first, second = _multiplied(operation)
    if operation.short_name not in _MATMULS or not second or first[-1] != second[-2]:
        return None
    return first[-2], first[-1], second[-1]


def known_flops(operation: Operation) -> float | None:
    """FLOPs of a call of matmuls and attention, from their shapes; None for other operations."""
    name = operation.short_name
    shapes = [t.shape for t in operation.inputs]
    if name in _MATMULS:
        first, second = _multiplied(operation)
        if second and len(first) == len(second):
            return operation.count * 2.0 * math.prod(first) * second[-1]
        return None
    if name.startswith(_ATTENTION) and len(shapes) > 1 and len(shapes[0]) == len(shapes[1]) == 4:
        query, key = shapes[:2]
        length = key[2] if name.startswith("_scaled") else key[1]  # (B, H, L, D) or (B, L, H, D)
        return operation.count * 4.0 * math.prod(query) * length
    return None


_MATMULS = ("mm", "addmm", "bmm", "baddbmm")
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "_cudnn_attention")
