"""The layers of a TensorRT engine, from what its inspector reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from precisionbench.backends.engine_layers import EngineLayer
from precisionbench.results.evidence import Tensor

PLACE = "TensorRT"
# Words of the inspector's "Format/Datatype": up to TensorRT 9 a sentence ("Channel major FP16
# format where channel % 8 == 0"), from 10 on a type ("Half"). The first that fits counts.
_DTYPES = {
    "bfloat16": ("bf16", "bfloat16"),
    "float16": ("fp16", "half"),
    "int8": ("int8",),
    "float8": ("fp8",),
    "float4": ("fp4",),
    "int32": ("int32",),
    "int64": ("int64",),
    "bool": ("bool",),
    "float32": ("fp32", "float"),
}
# What a layer computes, by its type. Kernels that TensorRT has generated for a part of the network
# (`kgen`, `fusion`) have no such type; their own names begin with what they compute.
_KINDS = {
    "Attention": re.compile(r"mha|attention", re.I),
    "Deconvolution": re.compile(r"deconv", re.I),
    "Convolution": re.compile(r"conv(?!er)|corr(?!ect)", re.I),
    "MatMul": re.compile(r"gemm|mat(?:rix)?_?mul|fully_?connected|_fc(?=cast|add|_|$)", re.I),
    "RNN": re.compile(r"rnn|lstm|gru", re.I),
}
_GENERATED = ("kgen", "fusion")


def has_types(found: Iterable[Any]) -> bool:
    """Whether layers are reported with their types, and not by their names only.

    Args:
        found: "Layers" of what the inspector gives: dicts at verbosity DETAILED, names below.
    """
    return all(isinstance(layer, Mapping) for layer in found)


def layers_of(found: Iterable[Any]) -> list[EngineLayer]:
    """The layers of an engine.

    Args:
        found: "Layers" of what the inspector of the engine gives as JSON.
    """
    return [
        _layer(layer if isinstance(layer, Mapping) else {"Name": str(layer)}) for layer in found
    ]


def _layer(found: Mapping[str, Any]) -> EngineLayer:
    return EngineLayer(
        name=str(found.get("Name", "")),
        kind=_kind(found),
        inputs=tuple(_tensors(found.get("Inputs") or ())),
        outputs=tuple(_tensors(found.get("Outputs") or ())),
        place=PLACE,
        time_s=0.0,  # the inspector does not time
    )


def _kind(found: Mapping[str, Any]) -> str:
    """What a layer computes, in the words of `EngineLayer`; else TensorRT's type of it."""
    if "LayerType" not in found:
        return "Reformat" if "reformat" in str(found.get("Name", "")).lower() else ""
    kind = str(found["LayerType"])
    searched = str(found.get("Name", "")) if kind in _GENERATED else kind
    return next((name for name, words in _KINDS.items() if words.search(searched)), kind)


def _tensors(listed: Iterable[Mapping[str, Any]]) -> Iterator[Tensor]:
    for entry in listed:
        shape = tuple(max(0, int(size)) for size in entry.get("Dimensions") or ())
        yield Tensor(shape, dtype_of(str(entry.get("Format/Datatype", entry.get("Datatype", "")))))


def dtype_of(text: str) -> str:
    """The dtype in the inspector's words for a format; empty where it names none.

    Args:
        text: such as `Half` or `Row major linear FP32`.
    """
    text = text.lower()
    return next((name for name, words in _DTYPES.items() if any(w in text for w in words)), "")
