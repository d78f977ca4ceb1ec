"""Layers of a quantised row ran in floats: not quantised, or without an 8-bit kernel."""

from __future__ import annotations

from collections.abc import Iterable

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import BYTES
from precisionbench.diagnosis.quantised import EIGHT_BITS, FLOATS
from precisionbench.diagnosis.work import MatrixWork
from precisionbench.results.claims import TENSORRT

_LEAST_SHARE = 0.2
_NAMED = 3


def detect(context: CauseContext) -> CauseMatch | None:
    """By the operands of its matmuls and convolutions, in rows that claim to be quantised.

    A model may be quantised in part by itself. TensorRT has a finding of its own.
    """
    found, facts = context.facts.quantisation, context.facts
    if not context.is_quantised or found.reference_s or context.claims.engine == TENSORRT:
        return None
    in_floats = found.floats if context.claims_8_bits else _with_weights(found.floats, facts)
    if not in_floats:
        return _by_number(facts.engine_work) if facts.on_gpu else None
    whole_s = facts.whole_s
    times_s = _times_s(in_floats)
    share = sum(times_s.values()) / whole_s
    if share < _LEAST_SHARE:
        return None
    named = [f"{name} {time_s / whole_s:.0%}" for name, time_s in list(times_s.items())[:_NAMED]]
    saved_s = sum(work.time_s * (1 - 1 / BYTES.get(work.dtype, 2)) for work in in_floats)
    return CauseMatch(
        (Number("layers in floats", len(times_s), "count"), Number("time in them", share, "share")),
        without(saved_s / whole_s),  # in proportion to the bytes of an element
        reason=f"the longest: {', '.join(named)}",
        remedy=_remedy(context, in_floats),
    )


def _with_weights(work: Iterable[MatrixWork], facts: Facts) -> list[MatrixWork]:
    """Those of layers that have weights: attention itself has none that could be quantised."""
    layers = facts.evidence.layers
    paths = {layer.path for layer in layers if any(len(p.shape) > 1 for p in layer.parameters)}
    return [one for one in work if one.operation.layer in paths]


def _remedy(context: CauseContext, in_floats: Iterable[MatrixWork]) -> str:
    """Where torchao left convolutions, another quantiser; empty otherwise."""
    if "torchao" not in context.claims.packages or not any(w.is_convolution for w in in_floats):
        return ""
    others = "TensorRT" if context.facts.on_gpu else "OpenVINO, ONNX Runtime or (on x86) PT2E"
    return f"torchao quantises linear layers only; {others} can quantise convolutions too"


def _times_s(work: Iterable[MatrixWork]) -> dict[str, float]:
    """Seconds of a call in each layer, the longest first."""
    found: dict[str, float] = {}
    for one in work:
        name = one.operation.layer or one.operation.name
        found[name] = found.get(name, 0.0) + one.time_s
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _by_number(layers: Iterable[MatrixWork]) -> CauseMatch | None:
    """By what an engine reports of its layers on a GPU, whose times it does not report."""
    layers = [layer for layer in layers if layer.dtype in (*EIGHT_BITS, *FLOATS)]
    in_floats = [layer for layer in layers if layer.dtype in FLOATS]
    if not layers or len(in_floats) < _LEAST_SHARE * len(layers):
        return None
    return CauseMatch(
        (
            Number("layers in floats", len(in_floats), "count"),
            Number("matmuls and convolutions in all", len(layers), "count"),
        ),
        reason=f"the first: {in_floats[0].operation.layer}",
    )


CAUSE = Cause(
    "layers-in-float",
    "layers ran in floats, not in 8 bits",
    "quantise these layers too; where the library has no 8-bit kernel for them, change their kind "
    "or their sizes (multiples of 16), or use a library that has one",
    detect,
)
