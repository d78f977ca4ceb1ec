"""Figures of a quantised row: matrix work in 8 bits and in floats, and conversions between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence, Set

import attrs

from precisionbench.diagnosis.operands import PACKED, operand_dtypes
from precisionbench.diagnosis.parts import COPIES, is_matrix
from precisionbench.diagnosis.weight_casts import WeightCasts
from precisionbench.diagnosis.work import MatrixWork
from precisionbench.results.dtypes import BFLOAT16, FLOAT8, FLOAT16, FLOAT32, FLOAT64, INT8
from precisionbench.results.evidence import Evidence, Operation, Tensor

EIGHT_BITS = (INT8, FLOAT8)
FLOATS = (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)
# Operations that convert: `quantize_per_tensor`, `dequantize_affine`, `choose_qparams`; not
# `quantized_lstm`, and not `quantized::linear`, whose namespace is left out.
_CONVERTS = re.compile(r"(de)?quantize(?!d)|choose_qparams")
_REFERENCE = "quantized_decomposed::"
# Kernels that read 4- or 8-bit weights and multiply in floats, and those that quantise their input.
_WEIGHT_ONLY = re.compile(r"_weight_int[48]pack|int4mm|matmul_n_?bits")
_QUANTISES_ITSELF = re.compile(r"onednn::q|dynamic_quantize|_dyn_quant_matmul|integer")
_CODES = ("int8", "uint8", "qint8", "quint8", "c10::qint8", "c10::quint8")
_OPERANDS = 2
# A layer and the shape of one of its matrices, in any order of dimensions.
_Place = tuple[str, tuple[int, ...]]


@attrs.frozen
class Quantisation:
    """What the quantised operations of a call cost, in seconds of a call.

    Attributes:
        eight_bits: matrix work with operands of 8 bits.
        weight_only: matrix work of kernels that read 4- or 8-bit weights and multiply in floats.
        dequantised: matrix work in floats whose weights are dequantised in the same call.
        floats: other matrix work in floats.
        weights_s: in conversions of weights.
        weight_conversions: conversions of weights in a call.
        activations_s: in conversions of activations.
        reference_s: in quantised operations of PyTorch that run one by one as reference code.
    """

    eight_bits: tuple[MatrixWork, ...] = ()
    weight_only: tuple[MatrixWork, ...] = ()
    dequantised: tuple[MatrixWork, ...] = ()
    floats: tuple[MatrixWork, ...] = ()
    weights_s: float = 0.0
    weight_conversions: float = 0.0
    activations_s: float = 0.0
    reference_s: float = 0.0

    @property
    def found(self) -> bool:
        """Whether anything in the call is quantised."""
        conversions_s = self.weights_s + self.activations_s
        return bool(self.eight_bits or self.weight_only or conversions_s)


def quantisation_of(
    evidence: Evidence, work: Sequence[MatrixWork], recast: WeightCasts
) -> Quantisation:
    """The quantised operations of a call, from its operations and their operands.

    Args:
        evidence: of a row.
        work: its matrix operations.
        recast: its casts of weights. Where the model's own code casts its weights, they are there.
    """
    kinds = [(one, _kind(one)) for one in work]
    in_floats = [one for one, kind in kinds if kind == "floats"]
    weights = {(_layer(one.operation), _weight_shape(one.operation)) for one in in_floats}
    converted = [o for o in evidence.operations if _converts(o) or _casts_codes(o)]
    of_weights = [o for o in converted if _is_of_weight(o, weights, recast)]
    places = {place for operation in of_weights for place in _places(operation)}
    is_dequantised = [
        (_layer(one.operation), _weight_shape(one.operation)) in places for one in in_floats
    ]
    ids = {id(operation) for operation in of_weights}
    return Quantisation(
        eight_bits=tuple(one for one, kind in kinds if kind == "eight bits"),
        weight_only=tuple(one for one, kind in kinds if kind == "weight-only"),
        dequantised=tuple(itertools.compress(in_floats, is_dequantised)),
        floats=tuple(itertools.compress(in_floats, (not found for found in is_dequantised))),
        weights_s=sum(o.time_s for o in of_weights),
        weight_conversions=sum(o.count for o in of_weights if _is_outermost(o)),
        activations_s=sum(o.time_s for o in converted if id(o) not in ids),
        reference_s=sum(
            o.time_s for o in converted if _is_reference(o) or (id(o) in ids and _quantises(o))
        ),
    )


def _kind(work: MatrixWork) -> str:
    """`eight bits`, `weight-only`, `floats`, or empty where the operands are not known."""
    name, dtypes = work.operation.name, operand_dtypes(work.operation) or {work.dtype}
    if _WEIGHT_ONLY.search(name):
        return "weight-only"
    if dtypes <= {*EIGHT_BITS, PACKED}:
        return "eight bits"
    if not dtypes.isdisjoint(EIGHT_BITS):  # a kernel may quantise its input itself
        return "eight bits" if _QUANTISES_ITSELF.search(name) else "weight-only"
    return "floats" if dtypes <= set(FLOATS) else ""


def _conversion(name: str) -> re.Match[str] | None:
    return _CONVERTS.search(name.rpartition("::")[2])


def _converts(operation: Operation) -> bool:
    names = (operation.name, *operation.parents)
    return not is_matrix(operation) and any(map(_conversion, names))


def _quantises(operation: Operation) -> bool:
    """Whether it converts to 8 bits, and not from them."""
    names = (operation.name, *operation.parents)
    return any(found and found[1] != "de" for found in map(_conversion, names))


def _casts_codes(operation: Operation) -> bool:
    """Whether it copies floats to 8 bits or back; conversions of engines have the same name."""
    if operation.short_name not in COPIES or len(operation.inputs) < _OPERANDS:
        return False
    result, source = operation.inputs[:_OPERANDS]
    return (_is_code(result) and source.dtype in FLOATS) or (
        _is_code(source) and result.dtype in FLOATS
    )


def _is_code(tensor: Tensor) -> bool:
    return tensor.dtype in _CODES or tensor.dtype.startswith(FLOAT8)


def _is_of_weight(operation: Operation, weights: Set[_Place], recast: WeightCasts) -> bool:
    is_plain_cast = not _converts(operation)
    if is_plain_cast and (recast.count or not _is_code(operation.inputs[1])):
        return False
    return not weights.isdisjoint(_places(operation))


def _places(operation: Operation) -> Iterator[_Place]:
    return ((_layer(operation), shape) for shape in _shapes(operation))


def _layer(operation: Operation) -> str:
    """The layer; of an engine none, because each of its conversions is a layer of its own."""
    return "" if operation.place else operation.layer


def _shapes(operation: Operation) -> Iterator[tuple[int, ...]]:
    """The shapes of its matrices, in any order of dimensions."""
    return (tuple(sorted(t.shape)) for t in operation.inputs if len(t.shape) > 1)


def _weight_shape(operation: Operation) -> tuple[int, ...]:
    """The shape of its last matrix, in any order of dimensions; empty without two."""
    matrices = list(_shapes(operation))
    return matrices[-1] if len(matrices) >= _OPERANDS else ()


def _is_outermost(operation: Operation) -> bool:
    """Whether no operation around it converts as well."""
    return not any(map(_conversion, operation.parents))


def _is_reference(operation: Operation) -> bool:
    return any(name.startswith(_REFERENCE) for name in (operation.name, *operation.parents))
