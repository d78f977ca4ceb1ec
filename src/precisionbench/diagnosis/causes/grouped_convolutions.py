"""Grouped and depthwise convolutions gain nothing from 16 bits."""

from __future__ import annotations

import attrs

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.errors import some
from precisionbench.results.evidence import Layer

_LEAST_SHARE = 0.1
_LITTLE_GAIN = 1.2
_USUAL_GAIN = 2.0  # of 16 bits, which move half the bytes


@attrs.frozen
class _Grouped:
    """A grouped convolution.

    Attributes:
        path: its layer.
        groups: number of groups.
        channels: input channels of a group.
        time_s: seconds of a call in the row, without what the profiler adds.
        before_s: the same in the reference.
    """

    path: str
    groups: int
    channels: int
    time_s: float
    before_s: float


def detect(context: CauseContext) -> CauseMatch | None:
    """Such layers that are hardly faster than in the reference, with their share of the time.

    Those that tensor cores run inefficiently on a GPU are found by `tensor-core-obstacles`.
    """
    facts, base = context.facts, context.base
    if not context.claims_half or base is None or base is facts:
        return None
    if facts.row.launch_bound == "host_bound":
        return None
    found = [one for one in _grouped(facts, base) if one.time_s * _LITTLE_GAIN > one.before_s]
    spent_s, before_s = sum(one.time_s for one in found), sum(one.before_s for one in found)
    share = min(1.0, spent_s / facts.row.latency.value) if found else 0.0
    if share <= _LEAST_SHARE or not before_s:
        return None
    gain = before_s / spent_s
    return CauseMatch(
        (
            Number("time in such layers", share, "share"),
            Number("speed-up of these layers over the reference", gain, "ratio"),
        ),
        without(share * (1 - gain / _USUAL_GAIN)),
        reason=some([f"{o.path} ({o.groups} groups of {o.channels} channels)" for o in found]),
        untestable=facts.row.options.get("memory_format") == "channels_last",
    )


def _grouped(facts: Facts, base: Facts) -> list[_Grouped]:
    """The grouped convolutions of a row that ran in both rows, the slowest first."""
    obstacles = {work.operation.layer for work in facts.work if work.obstacles}
    ours, theirs = _time_by_layer(facts), _time_by_layer(base)
    found = [
        _Grouped(layer.path, groups, channels, ours[layer.path], theirs[layer.path])
        for layer in facts.evidence.layers
        for groups, channels in (_groups(layer),)
        if groups > 1 and ours.get(layer.path) and theirs.get(layer.path)
        if not (facts.on_gpu and layer.path in obstacles)
    ]
    return sorted(found, key=lambda one: -one.time_s)


def _time_by_layer(facts: Facts) -> dict[str, float]:
    """Seconds of a call by layer; the profiler makes many short operations longer than one."""
    scale = facts.row.latency.value / facts.whole_s
    found: dict[str, float] = {}
    for operation in facts.evidence.operations:
        found[operation.layer] = found.get(operation.layer, 0.0) + scale * operation.time_s
    return found


def _groups(layer: Layer) -> tuple[int, int]:
    """The groups of a convolution, and the input channels of each; (1, 0) for other layers."""
    weight = layer.parameters[0].shape if layer.parameters else ()
    x = layer.inputs[0].shape if layer.inputs else ()
    if "Conv" not in layer.kind or "Transpose" in layer.kind or len(weight) < 3:
        return 1, 0
    channels = x[-len(weight) + 1] if len(x) >= len(weight) - 1 else weight[1]
    return max(1, channels // weight[1]), weight[1]


CAUSE = Cause(
    "grouped-convolutions",
    "grouped convolutions that are not faster in FP16/BF16",
    "keep those layers in float32, use fewer groups, or use memory_format=channels_last, for which "
    "more kernels exist; measure each",
    detect,
    "channels-last",
)
