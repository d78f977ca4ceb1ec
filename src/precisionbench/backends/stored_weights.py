"""In which dtypes the weights of a model's layers are stored, read from their tensors."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.errors import PrecisionBenchWarning
from precisionbench.results.dtypes import FLOAT8, INT4, dtype_name
from precisionbench.results.json_values import Json

# Layers that stayed in floating point and are named: in the details, and in a warning.
_NAMED_LAYERS, _LISTED_LAYERS = 8, 3
_INT4_BITS = 4
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@attrs.frozen
class StoredWeight:
    """A weight matrix of a layer.

    Attributes:
        layer: path of the module; empty for the model itself.
        elements: number of weights.
        dtype: in which they are stored: `int8`, `int4`, `float8`, or a dtype of torch.
    """

    layer: str
    elements: int
    dtype: str


def stored_weights(model: nn.Module) -> list[StoredWeight]:
    """The weights of all layers that multiply by them: no embeddings, norms and biases.

    Args:
        model: any; quantised layers have tensors of subclasses of `torch.Tensor` as weights.
    """
    return [
        StoredWeight(layer, weight.numel(), stored_dtype(weight))
        for layer, module in model.named_modules()
        if not isinstance(module, _EMBEDDINGS)
        for weight in _weights_of(module)
    ]


def _weights_of(module: nn.Module) -> Iterator[torch.Tensor]:
    for name, parameter in module.named_parameters(recurse=False):
        if "weight" in name and parameter.dim() > 1:
            yield parameter


def stored_dtype(weight: torch.Tensor) -> str:
    """The dtype of the numbers that a tensor holds.

    A subclass of `torch.Tensor` has the dtype that it stands for, and holds others: the largest of
    its inner tensors decides. Two 4-bit numbers are packed into a byte, or eight into an int32,
    which may be padded.

    Args:
        weight: any tensor.
    """
    inner = _inner_tensors(weight)
    if not inner:
        return dtype_name(weight.dtype)
    largest = max(inner, key=lambda tensor: tensor.numel() * tensor.element_size())
    bits = 8 * largest.numel() * largest.element_size() / max(1, weight.numel())
    if largest.dtype == torch.int32 or (bits < 2 * _INT4_BITS and not largest.is_floating_point()):
        return INT4
    name = dtype_name(largest.dtype)
    return FLOAT8 if name.startswith(FLOAT8) else name


def _inner_tensors(weight: torch.Tensor) -> list[torch.Tensor]:
    names = getattr(weight, "__tensor_flatten__", lambda: ((), None))()[0]
    return [getattr(weight, name) for name in names]


def summary(weights: Iterable[StoredWeight], stored: str) -> dict[str, Json]:
    """Details of a row: the shares of weights by dtype, and the layers that were not quantised.

    Args:
        weights: of the model.
        stored: the dtype in which they should be stored.

    Returns:
        `weight_shares` (shares of all weights by dtype), `quantised_layers`, `float_layers` (their
        number) and `float_layer_names` (the first of them).
    """
    weights = list(weights)
    elements: Counter[str] = Counter()
    for weight in weights:
        elements[weight.dtype] += weight.elements
    total = elements.total()
    names = [weight.layer for weight in weights if weight.dtype != stored]
    return {
        "weight_shares": {dtype: count / total for dtype, count in elements.most_common()},
        "quantised_layers": len(weights) - len(names),
        "float_layers": len(names),
        "float_layer_names": list(names[:_NAMED_LAYERS]),
    }


def warn_of_float_layers(
    weights: Mapping[str, Any], stored: str, refused: Mapping[str, str] | None = None
) -> None:
    """Warn of layers that stayed in floating point, and of a model without any quantised layer.

    Args:
        weights: the details of `summary`.
        stored: the dtype in which they should be stored.
        refused: reasons of layers that the quantiser or a kernel refused, by name.
    """
    number, quantised = weights["float_layers"], weights["quantised_layers"]
    if quantised and not number:
        return
    end = "" if quantised else f"; this row is not {stored}"
    reasons = [f"; {layer} was refused: {reason}" for layer, reason in (refused or {}).items()]
    warnings.warn(
        f"torchao did not quantise {number} {'layer' if number == 1 else 'layers'}"
        f"{_listed(weights, stored)}{''.join(reasons[:1])}{end}",
        PrecisionBenchWarning,
        stacklevel=3,
    )


def _listed(weights: Mapping[str, Any], stored: str) -> str:
    """The share of the weights that are not quantised, and the names of their layers."""
    names = [name or "the model itself" for name in weights["float_layer_names"]]
    if not names:
        return ": the model has no layers with weights"
    share = 1 - weights["weight_shares"].get(stored, 0.0)
    more = ", ..." if weights["float_layers"] > _LISTED_LAYERS else ""
    return f" with {share:.0%} of the weights ({', '.join(names[:_LISTED_LAYERS])}{more})"
