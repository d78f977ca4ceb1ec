"""Recurrent layers run many short steps, one after another."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.errors import some
from precisionbench.results.evidence import Layer, Operation

_LEAST_SHARE = 0.3
_LEAST_PACKING_SHARE = 0.05
# A step that is shorter does not fill the device.
_SHORT_STEP_S = {"gpu": 20e-6, "cpu": 100e-6}
_MIN_STEPS = 8
_LAYERS = ("LSTM", "GRU", "RNN")
_CELLS = ("LSTMCell", "GRUCell", "RNNCell")
_CUDNN = "aten::_cudnn_rnn"


@attrs.frozen
class _Recurrent:
    """A recurrent layer.

    Attributes:
        layer: the module.
        steps: dependent steps in a call: time steps times stacked layers.
        time_s: seconds of a call.
        packing_s: seconds of a call in copies of its weights.
    """

    layer: Layer
    steps: float
    time_s: float
    packing_s: float


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in recurrent layers of short steps, or in copies of their weights."""
    facts = context.facts
    short_s = _SHORT_STEP_S["gpu" if facts.on_gpu else "cpu"]
    found = list(_recurrent(facts))
    whole_s = max(facts.busy_s, facts.row.latency.value)
    short = [r for r in found if r.steps >= _MIN_STEPS and r.time_s < short_s * r.steps]
    share = min(1.0, sum(one.time_s for one in short) / whole_s)
    packing = min(1.0, sum(one.packing_s for one in found) / whole_s)
    if packing > _LEAST_PACKING_SHARE:
        return _packed(found, packing)
    if share <= _LEAST_SHARE:
        return None
    steps = sum(one.steps for one in short)
    return CauseMatch(
        (
            Number("time in recurrent layers", share, "share"),
            Number("dependent steps per call", steps, "count"),
            Number("time of a step", sum(one.time_s for one in short) / steps, "s"),
        ),
        without(share),
        reason=some([_name(one) for one in short]),
    )


def _packed(found: list[_Recurrent], share: float) -> CauseMatch:
    return CauseMatch(
        (Number("time in copies of recurrent weights", share, "share"),),
        without(share),
        remedy="call flatten_parameters() once after the weights have changed or moved, so that "
        "they are one contiguous block of memory",
        reason=some([_name(one) for one in found if one.packing_s]),
    )


def _name(found: _Recurrent) -> str:
    return f"{found.layer.path or 'the model'} ({found.layer.kind})"


def _recurrent(facts: Facts) -> Iterator[_Recurrent]:
    by_layer: dict[str, list[Operation]] = {}
    for operation in facts.evidence.operations:
        by_layer.setdefault(operation.layer, []).append(operation)
    for layer in facts.evidence.layers:
        own = by_layer.get(layer.path)
        steps = _steps(layer)
        if own and steps:
            yield _Recurrent(layer, steps, sum(o.time_s for o in own), _packing_s(facts, own))


def _steps(layer: Layer) -> float:
    """Dependent steps of a recurrent layer in a call; 0 for other layers."""
    if layer.kind in _CELLS:
        return layer.calls
    if layer.kind not in _LAYERS or not layer.inputs or len(layer.outputs) < 2:
        return 0.0
    sequence, state = layer.inputs[0].shape, layer.outputs[1].shape  # state: (layers, batch, size)
    stacked, batch = state[0], (state[1] if len(state) == 3 else 1)
    return layer.calls * stacked * math.prod(sequence[:-1]) / max(1, batch)


def _packing_s(facts: Facts, operations: list[Operation]) -> float:
    """Copies within the GPU's memory, where cuDNN gets no packed weights: it packs them itself."""
    ours = [o for o in operations if o.name == _CUDNN]
    if not ours or any(len(tensor.shape) == 1 for o in ours for tensor in o.inputs):
        return 0.0
    copies = [o.time_s for o in operations if _CUDNN in o.parents and o.short_name == "copy_"]
    return sum(copies) + sum(c.time_s for c in facts.evidence.copies if c.kind == "DtoD")


CAUSE = Cause(
    "recurrent-layers",
    "recurrent layers of many short steps",
    "use a larger batch, or layers that process all time steps at once; a lower precision gives "
    "little here",
    detect,
)
