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
# The GPU idles between short kernels: no longer than a slow host needs to launch one.
_LAUNCH_S = 10e-6


@attrs.frozen
class _Recurrent:
    """A recurrent layer.

    Attributes:
        layer: the module.
        steps: dependent steps in a call: time steps times stacked layers.
        time_s: seconds of a call in its operations.
        idle_s: seconds of a call in which the GPU waits for its kernels.
        packing_s: seconds of a call in copies of its weights.
    """

    layer: Layer
    steps: float
    time_s: float
    idle_s: float
    packing_s: float


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in recurrent layers of short steps, or in copies of their weights."""
    facts = context.facts
    short_s = _SHORT_STEP_S["gpu" if facts.on_gpu else "cpu"]
    found = list(_recurrent(facts))
    whole_s = facts.whole_s
    short = [r for r in found if r.steps >= _MIN_STEPS and r.time_s < short_s * r.steps]
    idle = min(1.0, sum(one.idle_s for one in short) / whole_s)
    share = min(1.0, idle + sum(one.time_s for one in short) / whole_s)
    packing = min(1.0, sum(one.packing_s for one in found) / whole_s)
    if packing > _LEAST_PACKING_SHARE:
        return _packed(found, packing)
    if share <= _LEAST_SHARE:
        return None
    steps = sum(one.steps for one in short)
    numbers = [
        Number("time in recurrent layers", share, "share"),
        Number("dependent steps per call", steps, "count"),
        Number("time of a step", sum(one.time_s for one in short) / steps, "s"),
    ]
    if idle:
        numbers.append(Number("GPU idle between their kernels", idle, "share"))
    return CauseMatch(
        tuple(numbers),
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
            time_s, idle_s = sum(o.time_s for o in own), _idle_s(facts, own)
            yield _Recurrent(layer, steps, time_s, idle_s, _packing_s(facts, own))


def _idle_s(facts: Facts, operations: list[Operation]) -> float:
    """Seconds of a call in which the GPU waits for kernels of these operations, by their number."""
    launches = sum(kernel.count for o in operations for kernel in o.kernels)
    every = sum(kernel.count for o in facts.evidence.operations for kernel in o.kernels)
    idle_s = max(0.0, facts.row.latency.value - facts.busy_s)
    return min(idle_s * launches / every, _LAUNCH_S * launches) if every else 0.0


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
    packing = ("copy_", "fill_")  # the block of memory is set to zero first
    copies = [o.time_s for o in operations if _CUDNN in o.parents and o.short_name in packing]
    return sum(copies) + sum(c.time_s for c in facts.evidence.copies if c.kind == "DtoD")


CAUSE = Cause(
    "recurrent-layers",
    "recurrent layers of many short steps",
    "use a larger batch, or layers that process all time steps at once; a lower precision gives "
    "little here",
    detect,
)
