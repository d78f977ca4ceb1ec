"""Casts of weights in a call: of parameters, buffers and other tensors of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import attrs

from precisionbench.diagnosis.parts import is_cast, is_matrix
from precisionbench.results.evidence import Evidence, Layer, Operation, Tensor

# Dtypes of quantised weights. Indices and positions are int64.
_CODES = ("int8", "uint8", "int16", "int32")
_CODES_OF_FLOATS = ("float8", "float4")  # beginnings; torch computes in none of them
# A packed code holds up to this many weights, so the unpacked tensor is larger by a factor of them.
_PACKED = (1, 2, 4, 8)
_LEAST_CODES = 1024  # elements; fewer are scales, zero points or sizes


@attrs.frozen
class WeightCasts:
    """What a call spends on casts of weights.

    Attributes:
        count: casts of weights in a call; operations that read codes and give floats count, too.
        time_s: seconds of a call in them.
        codes_s: seconds of a call in those whose weights are stored in codes: in integers, or in
            floating point of 8 bits or less.
        dequantising_s: seconds of a call in operations that cast without a cast operation, such as
            a product of int8 weights and a floating-point scale.
    """

    count: float = 0.0
    time_s: float = 0.0
    codes_s: float = 0.0
    dequantising_s: float = 0.0


def weight_casts(evidence: Evidence) -> WeightCasts:
    """The casts of a call whose source is a weight of the layer that they run in.

    A cast names no tensor, so a weight is recognised by its layer, dtype and size.

    Args:
        evidence: of a row.
    """
    layers = {layer.path: layer for layer in evidence.layers}
    found = [
        (operation, _stored_in_codes(source))
        for operation in evidence.operations
        if operation.layer in layers
        for source in _first(_sources(operation, layers[operation.layer]))
    ]
    return WeightCasts(
        count=sum(operation.count for operation, _ in found),
        time_s=sum(operation.time_s for operation, _ in found),
        codes_s=sum(operation.time_s for operation, in_codes in found if in_codes),
        dequantising_s=sum(o.time_s for o, _ in found if not is_cast(o)),
    )


def _first(sources: Iterator[Tensor]) -> Iterable[Tensor]:
    """At most one, so that an operation counts once."""
    found = next(sources, None)
    return () if found is None else (found,)


def _sources(operation: Operation, layer: Layer) -> Iterator[Tensor]:
    """The weights of its layer that an operation converts to another dtype."""
    stored = (*layer.parameters, *layer.buffers)
    if is_cast(operation):
        result, source = operation.inputs[:2]
        if any(_is(source, weight) for weight in stored) and "float" in result.dtype:
            yield source
    elif not is_matrix(operation) and any("float" in t.dtype for t in operation.inputs):
        for source in operation.inputs:
            is_small = source.dtype in ("int8", "uint8") or _is_small_float(source)
            if is_small and any(_is(source, one) for one in stored):
                yield source


def _is(source: Tensor, weight: Tensor) -> bool:
    """Whether a tensor can be a weight, a view of it, or the same codes unpacked."""
    if source.dtype != weight.dtype:
        return False
    size = math.prod(weight.shape)
    if _stored_in_codes(weight):
        return size >= _LEAST_CODES and math.prod(source.shape) in [size * n for n in _PACKED]
    return len(weight.shape) > 1 and sorted(source.shape) == sorted(weight.shape)


def _stored_in_codes(tensor: Tensor) -> bool:
    return tensor.dtype in _CODES or _is_small_float(tensor)


def _is_small_float(tensor: Tensor) -> bool:
    return tensor.dtype.startswith(_CODES_OF_FLOATS)
