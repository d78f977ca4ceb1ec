"""Made-up comparisons with a quantised row, of operations as torch's profiler records them.

The names, shapes, dtypes and parents are those of real profiles on a CPU (torch 2.14, torchao
0.18): two linear layers, or a convolution, quantised in each way.
"""

from __future__ import annotations

import attrs

from made_up_results import comparison, evidence
from precisionbench.results import ComparisonData
from precisionbench.results.claims import EAGER, Claims
from precisionbench.results.evidence import Evidence, Operation, Tensor

X, WEIGHT = (32, 512), (512, 512)
VNNI = ("avx2", "avx512_vnni")


def operation(name: str, time_s: float, *inputs: tuple, layer="0", parents=(), count=1.0, **more):
    """An operation on a CPU; inputs are (shape, dtype)."""
    tensors = tuple(Tensor(shape, dtype) for shape, dtype in inputs)
    return Operation(name, layer, tensors, count, time_s, (), parents, **more)


def mm(time_s: float = 1e-3, dtype: str = "float32", layer: str = "0") -> Operation:
    return operation("aten::mm", time_s, (X, dtype), (WEIGHT, dtype), layer=layer)


def int_mm(time_s: float = 0.3e-3, count: float = 1.0, layer: str = "0") -> Operation:
    operands = (X, "uint8"), (WEIGHT, "int8")
    return operation("aten::_int_mm", time_s, *operands, count=count, layer=layer)


def packed(time_s: float = 0.3e-3, layer: str = "0") -> Operation:
    return operation("quantized::linear_dynamic", time_s, (X, "float32"), layer=layer)


def relu(time_s: float) -> Operation:
    return operation("aten::relu", time_s, (X, "float32"), layer="1")


def quantising(time_s: float) -> tuple[Operation, ...]:
    """The activations of torchao's int8 dynamic quantisation: a few of its operations."""
    scale = ((32, 1), "float32")
    around = ("torchao::quantize_affine",)
    return (
        operation("torchao::choose_qparams_affine", 0.5 * time_s, (X, "float32")),
        operation("torchao::quantize_affine", 0.3 * time_s, (X, "float32"), scale),
        operation("aten::mul", 0.2 * time_s, (X, "float32"), scale, parents=around),
    )


def cast_weight(time_s: float = 0.1e-3, dtype: str = "int8") -> Operation:
    """torchao's weight-only tensor, which a cast makes a float tensor in every call."""
    operands = (WEIGHT, "float32"), (WEIGHT, dtype)
    return operation("aten::copy_", time_s, *operands, parents=("aten::_to_copy", "aten::to"))


def pt2e(time_s: float = 1e-3) -> tuple[Operation, ...]:
    """A converted PT2E model in eager mode: reference code around a float matmul."""
    of_weight = ("quantized_decomposed::dequantize_per_channel",)
    of_x = ("quantized_decomposed::quantize_per_tensor",)
    codes = (WEIGHT, "int8")
    return tuple(
        attrs.evolve(one, layer="")
        for one in (
            operation("aten::sub", 0.5 * time_s, codes, ((512, 1), "int64"), parents=of_weight),
            operation(of_weight[0], 0.1 * time_s, codes, ((512,), "float32")),
            operation(of_x[0], 0.1 * time_s, (X, "float32")),
            operation("aten::clamp", 0.1 * time_s, (X, "float32"), parents=of_x),
            operation(
                "aten::addmm",
                0.2 * time_s,
                ((512,), "float32"),
                (X, "float32"),
                (WEIGHT, "float32"),
            ),
        )
    )


def fx_reference() -> tuple[Operation, ...]:
    """convert_to_reference_fx: each weight is quantised and dequantised in every call."""
    weight = ((32, 32, 3, 3), "float32")
    scales = ((32,), "float32"), ((32,), "int64")
    image = ((4, 32, 32, 32), "float32")
    return (
        operation("aten::quantize_per_channel", 0.05e-3, weight, *scales),
        operation("aten::dequantize", 0.05e-3, ((32, 32, 3, 3), "qint8")),
        operation("aten::quantize_per_tensor", 0.03e-3, image, layer=""),
        operation("aten::mkldnn_convolution", 0.6e-3, image, weight, ((32,), "float32")),
    )


FLOAT = evidence(mm(), layers=())
MOSTLY_RELU = evidence(mm(0.4e-3), relu(0.8e-3), layers=())


def quantised(
    *operations: Operation,
    times_s: tuple[float, float] = (1e-3, 1.2e-3),
    flags: tuple[str, ...] | None = VNNI,
    base: Evidence | None = FLOAT,
    claim: str = "int8",
    **more,
) -> ComparisonData:
    """A float32 row and a row that claims 8 bits, on a CPU; by default it is slower."""
    row = {"claims": Claims(claim, engine=EAGER)}
    seen = evidence(*operations, layers=())
    data = comparison(base, seen, times_s=times_s, gpu=None, half_row=row, **more)
    environment = attrs.evolve(data.environment, cpu_flags=flags)
    return attrs.evolve(data, environment=environment, noise_floor=0.0025)


def with_row(data: ComparisonData, name: str, claims: Claims, seen: Evidence | None, time_s: float):
    """The comparison with one more row."""
    row = data.results[1]
    blocks = tuple(attrs.evolve(b, samples=(time_s,) * 5) for b in row.measurement.blocks)
    measured = attrs.evolve(row.measurement, blocks=blocks)
    more = attrs.evolve(row, backend=name, claims=claims, measurement=measured, evidence=seen)
    return attrs.evolve(data, results=(*data.results, more))


FAST = {"times_s": (1e-3, 0.4e-3)}
PLANTED_QUANTISED = {
    "too-small-to-quantise": (quantised(int_mm(), *quantising(0.6e-3)), "half"),
    "dequantised-weights": (quantised(cast_weight(), mm()), "half"),
    "reference-kernels": (quantised(*pt2e()), "half"),
    "layers-in-float": (quantised(packed(), mm(0.6e-3, layer="head"), **FAST), "half"),
    "no-fast-8-bits": (quantised(packed(1.1e-3), flags=("avx2",)), "half"),
    "memory-bound-in-8-bits": (
        quantised(packed(0.35e-3), relu(0.8e-3), base=MOSTLY_RELU, times_s=(1.2e-3, 1.15e-3)),
        "half",
    ),
}
# Almost the same, without the cause: larger layers, kernels that read int8 weights themselves, a
# compiled model, a short head in floats, a CPU with VNNI, and fewer pointwise operations.
CLEAN_QUANTISED = {
    "too-small-to-quantise": quantised(int_mm(), *quantising(0.1e-3), **FAST),
    "dequantised-weights": quantised(
        operation("aten::_weight_int8pack_mm", 0.4e-3, (X, "float32"), (WEIGHT, "int8")), **FAST
    ),
    "reference-kernels": quantised(
        operation("onednn::qlinear_pointwise", 0.35e-3, (X, "uint8"), (WEIGHT, "int8")), **FAST
    ),
    "layers-in-float": quantised(packed(0.35e-3), mm(0.03e-3, layer="head"), **FAST),
    "no-fast-8-bits": quantised(packed(1.1e-3), flags=VNNI),
    "memory-bound-in-8-bits": quantised(
        packed(0.35e-3), relu(0.2e-3), base=MOSTLY_RELU, times_s=(1.2e-3, 0.6e-3)
    ),
}
