"""Scatter and index additions are slower in 16 bits than in float32."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import addition_by_index, adds_by_index
from precisionbench.errors import some

_LEAST_SHARE = 0.1
_SLOWER = 1.1


def detect(context: CauseContext) -> CauseMatch | None:
    """The time of such operations, where the reference needs less for the same ones."""
    facts, base = context.facts, context.base
    if not context.claims_half or base is None or base is facts or not base.parts:
        return None
    spent_s, before_s = _time_s(facts), _time_s(base)
    share = min(1.0, spent_s / facts.whole_s) if spent_s else 0.0
    if share <= _LEAST_SHARE or not before_s or spent_s < _SLOWER * before_s:
        return None
    return CauseMatch(
        (
            Number("time in such operations", share, "share"),
            Number("their time over that in the reference", spent_s / before_s, "ratio"),
        ),
        without(share),
        reason=some(_names(facts)),
    )


def _time_s(facts: Facts) -> float:
    return sum(
        operation.time_s for operation in facts.evidence.operations if adds_by_index(operation)
    )


def _names(facts: Facts) -> list[str]:
    found = sorted(filter(adds_by_index, facts.evidence.operations), key=lambda one: -one.time_s)
    return list(dict.fromkeys(f"{addition_by_index(o)} in {o.layer or 'forward'}" for o in found))


CAUSE = Cause(
    "half-scatter",
    "scatter or index additions slower in FP16/BF16",
    "add in float32 and cast the result, or sort by index and use a segmented sum",
    detect,
)
