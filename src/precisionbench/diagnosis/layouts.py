"""Norms that have no channels_last kernel, and the copies that they make."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.parts import COPY, LAYOUT, Part
from precisionbench.results.evidence import Evidence, Layer

# PyTorch's own norms that make a contiguous copy of a channels_last image first. GroupNorm has a
# channels_last kernel on a CPU.
_ON_GPU = ("GroupNorm",)
_EVERYWHERE = ("InstanceNorm", "LocalResponseNorm")
_OVER_THE_IMAGE = "LayerNorm"
_IMAGE_DIMENSIONS = (4, 5)
_OPERATIONS = ("group_norm", "instance_norm", "layer_norm", "convolution", "conv2d", "conv3d")


def norms_of_contiguous_input(evidence: Evidence, on_gpu: bool) -> list[Layer]:
    """The norms of a model over images that convert channels_last inputs back to NCHW.

    Args:
        evidence: of a row.
        on_gpu: whether it ran on a CUDA GPU.

    Returns:
        Its layers. A `LayerNorm` over channels that were moved to the end has no need to convert
        and is left out.
    """
    kinds = (*_EVERYWHERE, *(_ON_GPU if on_gpu else ()))
    return [layer for layer in evidence.layers if _takes_image(layer) and _is_one(layer, kinds)]


def _takes_image(layer: Layer) -> bool:
    return bool(layer.inputs) and len(layer.inputs[0].shape) in _IMAGE_DIMENSIONS


def _is_one(layer: Layer, kinds: tuple[str, ...]) -> bool:
    if layer.kind.startswith(kinds):
        return True
    sizes = layer.parameters[0].shape if layer.parameters else ()
    return layer.kind == _OVER_THE_IMAGE and len(sizes) > 1


def conversions_around_norms(facts: Facts) -> list[Part]:
    """The copies and layout conversions of a call that norms and convolutions make.

    Args:
        facts: of a row whose norms convert the layout.
    """
    return [p for p in facts.parts if p.category in (COPY, LAYOUT) and _is_of_norm_or_conv(p)]


def _is_of_norm_or_conv(part: Part) -> bool:
    names = (part.operation.name, *part.operation.parents)
    return any(word in name for name in names for word in _OPERATIONS)
