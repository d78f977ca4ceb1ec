"""Factors from published pairs: two numbers that differ in one condition."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.errors import some
from precisionbench.published.record import Record
from precisionbench.published.search import model_key
from precisionbench.statistics import Interval

# Conditions that a pair must have in common, except the one that changes; None is unknown.
_CONDITIONS: dict[str, Callable[[Record], object]] = {
    "precision": lambda r: r.precision,
    "batch": lambda r: r.batch,
    "engines": lambda r: None if r.dlas is None else (r.gpus and 1, r.dlas),
    "framework": lambda r: family(r.framework) or None,
    "timed region": lambda r: None if r.metric == "not-stated" else r.metric,
    "sparsity": lambda r: r.sparsity,
    "input": lambda r: r.input,
    "variant": lambda r: r.variant or None,
    "software": lambda r: r.software,
    "power mode": lambda r: r.power_mode,
    "latency limit": lambda r: r.latency_limit_s,
}
# If a number does not state these, it has none.
_ABSENT_IF_UNSTATED = ("variant", "latency limit")
_MAX_LISTED = 3


def family(framework: str) -> str:
    """The framework without its version: `TensorRT (MLPerf ...)` is TensorRT.

    Args:
        framework: as stated in a record.
    """
    words = framework.split()
    return " ".join(words[:2] if words[:1] == ["PyTorch"] else words[:1])


@attrs.frozen
class Step:
    """A condition that changes.

    Attributes:
        condition: a key of the conditions that pairs must have in common otherwise.
        before: its value at the measured end.
        after: its value at the published end.
        name: of the factor.
    """

    condition: str
    before: object
    after: object
    name: str


def factor_of_pairs(
    step: Step, records: Sequence[Record], target: Record, of_others: bool = False
) -> Factor | None:
    """The factor of one changed condition, from published pairs; None where there are none.

    Pairs of the target's own device and model make it derived; those of other devices make it
    assumed. The pairs whose other conditions differ least from the target's are used. The range is
    theirs, and the factor is its middle (log scale).

    Args:
        step: what changes.
        records: published numbers.
        target: the published number to explain.
        of_others: use pairs of other devices.
    """
    alike = [
        record
        for record in records
        if model_key(record.model)[0] == model_key(target.model)[0]
        and (record.device != target.device) == of_others
        and _is_usable(record)
    ]
    pairs = _ratios(step, alike, target)
    if not pairs:
        return None
    reason = "pairs of other devices, because none is of this device" if of_others else ""
    return _factor(step, pairs, Kind.ASSUMED if of_others else Kind.DERIVED, reason)


def _is_usable(record: Record) -> bool:
    is_reliable = record.status != "unverified" and not record.doubt
    return record.items_per_s is not None and is_reliable


Pair = tuple[Record, Record]


def _ratios(step: Step, records: Sequence[Record], target: Record) -> list[Pair]:
    """Pairs that differ only in the step, those most similar to the target otherwise."""
    mine = _CONDITIONS[step.condition]
    before = [r for r in records if mine(r) == step.before]
    after = [r for r in records if mine(r) == step.after]
    pairs = [(a, b) for a in before for b in after if _differ_in_one(step.condition, a, b)]
    if not pairs:
        return []
    nearest = min(_distance(b, target) for _, b in pairs)
    return [(a, b) for a, b in pairs if _distance(b, target) == nearest]


def _differ_in_one(condition: str, one: Record, other: Record) -> bool:
    """A condition that neither number states counts as equal only within one source."""
    rest = [(name, value_of) for name, value_of in _CONDITIONS.items() if name != condition]
    of_one_source = one.source_title == other.source_title
    return one.device == other.device and all(
        value_of(one) == value_of(other) and (of_one_source or name not in _unstated(one))
        for name, value_of in rest
    )


def _unstated(record: Record) -> list[str]:
    """Conditions that a number has and does not state."""
    unstated = [name for name, value_of in _CONDITIONS.items() if value_of(record) is None]
    return [name for name in unstated if name not in _ABSENT_IF_UNSTATED]


def _distance(record: Record, target: Record) -> int:
    return sum(value_of(record) != value_of(target) for value_of in _CONDITIONS.values())


def _factor(step: Step, pairs: Sequence[Pair], kind: Kind, reason: str) -> Factor:
    ratios = [(b.items_per_s or 1.0) / (a.items_per_s or 1.0) for a, b in pairs]
    low, high = min(ratios), max(ratios)
    listed = [f"{a.id} to {b.id} ({b.source_url})" for a, b in pairs[:_MAX_LISTED]]
    more = f" and {len(pairs) - _MAX_LISTED} more" if len(pairs) > _MAX_LISTED else ""
    alone = "a single published pair of unknown uncertainty" if len(pairs) == 1 else ""
    reasons = [r for r in (reason, alone, _conditions_in_words(step, pairs)) if r]
    return Factor(
        step.name,
        kind,
        Interval(math.sqrt(low * high), low, high),
        f"published pairs: {'; '.join(listed)}{more}",
        "; ".join(reasons),
    )


def _conditions_in_words(step: Step, pairs: Sequence[Pair]) -> str:
    """The conditions under which the pairs were published."""
    batches = sorted({str(b.batch or "?") for _, b in pairs})
    metrics = sorted({b.metric for _, b in pairs})
    at = "" if step.condition == "batch" else f"at batch {some(batches)}, "
    names = sorted({name for _, b in pairs for name in _unstated(b)} - {"timed region", "batch"})
    unstated = f", not stated by either: {', '.join(names)}" if names else ""
    return f"{at}metric {some(metrics)}{unstated}".replace("not-stated", "not stated")
