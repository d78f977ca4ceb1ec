"""Weights are computed from their parametrization in every call."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import PARAMETRIZATIONS, computes_weights
from precisionbench.errors import some
from precisionbench.results.evidence import Operation

_LEAST_SHARE = 0.1


def detect(context: CauseContext) -> CauseMatch | None:
    """The time of operations that compute weights: by their module, or by their name.

    A layer of a compiled row has no module, so that nothing is found there.
    """
    facts = context.facts
    found = [o for o in facts.evidence.operations if computes_weights(o)]
    share = sum(o.time_s for o in found) / facts.whole_s
    if share <= _LEAST_SHARE:
        return None
    longest = sorted(found, key=lambda operation: -operation.time_s)
    layers = list(dict.fromkeys(map(_layer, longest)))
    return CauseMatch(
        (
            Number("time in computing weights", share, "share"),
            Number("layers with such weights", len(layers), "count"),
        ),
        without(share),
        reason=f"in {some(layers)}",
    )


def _layer(operation: Operation) -> str:
    """The layer whose weights they are."""
    path = operation.layer.split(".")
    if PARAMETRIZATIONS in path:
        path = path[: path.index(PARAMETRIZATIONS)]
    return ".".join(path) or "the model"


CAUSE = Cause(
    "recomputed-weights",
    "weights are computed in every call",
    "compute them once before the calls: torch.nn.utils.parametrize.remove_parametrizations(layer, "
    "'weight'), or torch.nn.utils.remove_weight_norm(layer) for the older function",
    detect,
    "weights-computed-once",
)
