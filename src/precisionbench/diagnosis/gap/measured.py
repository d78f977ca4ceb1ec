"""Factors that were measured: the way through a comparison's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.analysis.variation import MIN_INTERVAL_ROUNDS, count_rounds
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.gap.states import LAYOUT, PRECISION, Hop, route, state_of
from precisionbench.results.records import REPORTED, BackendResult, ComparisonData
from precisionbench.statistics import Interval

# Two changes whose effects are known to depend on each other: where both have been measured each
# without the other, what they do together is a factor of its own.
_INTERACTING = (PRECISION, LAYOUT)
BY_ITSELF = "by itself"
_WAYS = {"rounds": "in common rounds", "restarts": "started anew in each round"}


def measured_factors(data: ComparisonData, start: str, goal: str) -> tuple[Factor, ...]:
    """What the changes between two rows of one comparison are worth, one by one.

    The product of the factors is about the ratio of the two rows, within their intervals: each
    factor is estimated from the rounds of its own two rows.
    Where a precision and a memory format have been measured each without the other, both count by
    themselves, and what both together make of it is a factor of its own.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.
    """
    found: list[Factor] = []
    for hops, together in _strides(data, start, goal):
        found += together or [_factor(data, hops[0], start)]
    return tuple(found)


def _strides(
    data: ComparisonData, start: str, goal: str
) -> Iterator[tuple[tuple[Hop, ...], list[Factor]]]:
    """The way hop by hop; two at once, with their factors, where both orders were measured."""
    hops = way(data, start, goal)
    place = 0
    while place < len(hops):
        pair = hops[place : place + 2]
        together = _both_orders(data, pair)
        yield (pair if together else pair[:1]), together
        place += 2 if together else 1


def arrivals(data: ComparisonData, start: str, goal: str) -> tuple[str, ...]:
    """The row that each of the measured factors arrives at.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.

    Returns:
        A name for each of `measured_factors`; empty where a factor is of a row beside the way.
    """
    found: list[str] = []
    for hops, together in _strides(data, start, goal):
        first, last = hops[0].after, hops[-1].after
        found += [first, "", last] if together else [first]
    return tuple(found)


def way(data: ComparisonData, start: str, goal: str) -> tuple[Hop, ...]:
    """From one row to another by single changes, through rows whose output is sound.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.
    """
    rows = [row for row in data.results if is_sound(row) or row.backend in (start, goal)]
    return route(rows, start, goal)


def _factor(data: ComparisonData, hop: Hop, start: str) -> Factor:
    ratio = per_item_ratio(data, hop.before, hop.after)
    name = "; ".join(hop.changes) or "the same once more"
    return _known(data, name, ratio, f"{hop.after} over {hop.before}", _as_first(data, hop, start))


def _changed(hop: Hop) -> str:
    """What changes in a hop; empty where that is not one thing."""
    return hop.changes[0].partition(":")[0] if len(hop.changes) == 1 else ""


def _as_first(data: ComparisonData, hop: Hop, start: str) -> str:
    """What the same change is worth as the first one, where that has been measured, too."""
    change = _changed(hop)
    if not change or hop.before == start:
        return ""
    corner = _row_like(data.results, start, change, hop.after)
    if corner is None or corner.backend == start:
        return ""
    found = per_item_ratio(data, start, corner.backend)
    return (
        f"as the first change it is worth {found.value:.3g}x ({found.low:.3g} to {found.high:.3g})"
    )


def _both_orders(data: ComparisonData, hops: Sequence[Hop]) -> list[Factor]:
    """Two changes each by itself, and what both together make of it; empty where not measured."""
    changed = [_changed(hop) for hop in hops]
    if sorted(changed) != sorted(_INTERACTING):
        return []
    first, second = hops
    corner = _row_like(data.results, first.before, changed[1], second.after)
    if corner is None:
        return []
    alone = [
        per_item_ratio(data, first.before, first.after),
        per_item_ratio(data, first.before, corner.backend),
    ]
    other = per_item_ratio(data, corner.backend, second.after)  # the first, after the second
    interaction = Interval(
        other.value / alone[0].value, other.low / alone[0].high, other.high / alone[0].low
    )
    why = "what each is worth depends on the other, so neither order would be right alone"
    both = f"{second.after} over {corner.backend} against {first.after} over {first.before}"
    one, two = (hop.changes[0] for hop in hops)
    return [
        _known(data, one, alone[0], f"{first.after} over {first.before}", BY_ITSELF),
        _known(data, two, alone[1], f"{corner.backend} over {first.before}", BY_ITSELF),
        _known(data, f"both together ({' and '.join(_INTERACTING)})", interaction, both, why),
    ]


def _known(
    data: ComparisonData, name: str, factor: Interval, rows: str, reason: str = ""
) -> Factor:
    day = data.created[:10]
    if data.launcher == REPORTED:
        source = f"{rows}, reported {day}, not measured here"
        return Factor(name, Kind.DERIVED, factor, source, reason)
    how = _WAYS.get(data.schedule, "one after another, drift between them not in the range")
    rounds = min(count_rounds(row.measurement.blocks) for row in data.results)
    few = f"{rounds} round(s) only, so the range is merely what was seen"
    reason = "; ".join(filter(None, (reason, few if rounds < MIN_INTERVAL_ROUNDS else "")))
    return Factor(name, Kind.MEASURED, factor, f"{rows}, {how}, {day}", reason)


def _row_like(
    rows: Sequence[BackendResult], name: str, change: str, taken_from: str
) -> BackendResult | None:
    """The row that is as one, but in one thing as another, and whose output is sound."""
    states: Mapping[str, Mapping[str, str]] = {row.backend: state_of(row) for row in rows}
    wanted = {**states[name], change: states[taken_from].get(change, "")}
    return next((row for row in rows if states[row.backend] == wanted and is_sound(row)), None)


def fastest(data: ComparisonData) -> str:
    """Name of the row with the highest rate whose output is sound; of any row where none is.

    Args:
        data: a comparison with at least one row.
    """
    return max(_eligible(data), key=lambda name: rate_of(data, name))


def slowest(data: ComparisonData) -> str:
    """Name of the row with the lowest rate whose output is sound; of any row where none is.

    Args:
        data: a comparison with at least one row.
    """
    return min(_eligible(data), key=lambda name: rate_of(data, name))


def _eligible(data: ComparisonData) -> list[str]:
    names = [row.backend for row in data.results]
    return [row.backend for row in data.results if is_sound(row)] or names


def is_sound(row: BackendResult) -> bool:
    """Whether a row's output is finite wherever the reference's is.

    Args:
        row: of a comparison.
    """
    return row.agreement is None or not row.agreement.nonfinite_count


def rate_of(data: ComparisonData, name: str) -> float:
    """Items per second of a row; calls per second where it is not known what a call serves.

    Args:
        data: the comparison.
        name: of the row.
    """
    row = next(row for row in data.results if row.backend == name)
    return (row.batch_size or 1) / row.latency.value
