"""Factors that were measured: the path through a comparison's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from precisionbench._internal.interval_text import span
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.analysis.variation import count_rounds, least_interval_rounds
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.gap.states import (
    LAYOUT,
    PRECISION,
    Transition,
    shortest_path,
    state_of,
)
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.measurement import REPORTED
from precisionbench.statistics import Interval

# Two changes whose effects depend on each other: where each was measured without the other, their
# interaction is a separate factor.
_INTERACTING = (PRECISION, LAYOUT)
BY_ITSELF = "by itself"
_SCHEDULES = {"rounds": "interleaved in common rounds", "restarts": "restarted in each round"}


def measured_factors(data: ComparisonData, start: str, goal: str) -> tuple[Factor, ...]:
    """The factors of the changes between two rows of a comparison, one by one.

    The product of the factors is approximately the ratio of the two rows: each
    factor is estimated from the rounds of its own two rows.
    Where a precision and a memory format have each been measured without the other, each has its
    own factor, and their interaction has another.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.
    """
    found: list[Factor] = []
    for transitions, together in _grouped(data, start, goal):
        found += together or [_factor(data, transitions[0], start)]
    return tuple(found)


def _grouped(
    data: ComparisonData, start: str, goal: str
) -> Iterator[tuple[tuple[Transition, ...], list[Factor]]]:
    """The path by transitions, two at once with factors where both orders were measured."""
    transitions = measured_path(data, start, goal)
    place = 0
    while place < len(transitions):
        pair = transitions[place : place + 2]
        together = _both_orders(data, pair)
        yield (pair if together else pair[:1]), together
        place += 2 if together else 1


def rows_reached(data: ComparisonData, start: str, goal: str) -> tuple[str, ...]:
    """The row after each of the measured factors.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.

    Returns:
        A name for each of `measured_factors`; empty for the factor of a row off the path.
    """
    found: list[str] = []
    for transitions, together in _grouped(data, start, goal):
        first, last = transitions[0].after, transitions[-1].after
        found += [first, "", last] if together else [first]
    return tuple(found)


def measured_path(data: ComparisonData, start: str, goal: str) -> tuple[Transition, ...]:
    """The path from one row to another by single changes, through rows with finite outputs.

    Args:
        data: the comparison.
        start: name of the row to begin with.
        goal: name of the row to arrive at.
    """
    rows = [row for row in data.results if has_finite_output(row) or row.backend in (start, goal)]
    return shortest_path(rows, start, goal)


def _factor(data: ComparisonData, transition: Transition, start: str) -> Factor:
    ratio = per_item_ratio(data, transition.before, transition.after)
    name = "; ".join(transition.changes) or "repeated measurement"
    return _measured_factor(
        data,
        name,
        ratio,
        f"{transition.after} over {transition.before}",
        _as_first(data, transition, start),
    )


def _changed(transition: Transition) -> str:
    """The name of a transition's only change; empty where there are several."""
    return transition.changes[0].partition(":")[0] if len(transition.changes) == 1 else ""


def _as_first(data: ComparisonData, transition: Transition, start: str) -> str:
    """The factor of the same change made first, as text; empty where it was not measured."""
    change = _changed(transition)
    if not change or transition.before == start:
        return ""
    alternative = _row_like(data.results, start, change, transition.after)
    if alternative is None or alternative.backend == start:
        return ""
    found = per_item_ratio(data, start, alternative.backend)
    return f"as the first change its factor is {found.value:.3g}x ({span(found)})"


def _both_orders(data: ComparisonData, transitions: Sequence[Transition]) -> list[Factor]:
    """The factors of two changes alone and of their interaction; empty where not measured."""
    changed = [_changed(transition) for transition in transitions]
    if sorted(changed) != sorted(_INTERACTING):
        return []
    first, second = transitions
    alternative = _row_like(data.results, first.before, changed[1], second.after)
    if alternative is None:
        return []
    alone = [
        per_item_ratio(data, first.before, first.after),
        per_item_ratio(data, first.before, alternative.backend),
    ]
    other = per_item_ratio(data, alternative.backend, second.after)  # the first, after the second
    interaction = Interval(
        other.value / alone[0].value, other.low / alone[0].high, other.high / alone[0].low
    )
    why = "the factor of each depends on the other, so the order matters"
    both = f"{second.after} over {alternative.backend} against {first.after} over {first.before}"
    one, two = (transition.changes[0] for transition in transitions)
    return [
        _measured_factor(data, one, alone[0], f"{first.after} over {first.before}", BY_ITSELF),
        _measured_factor(
            data, two, alone[1], f"{alternative.backend} over {first.before}", BY_ITSELF
        ),
        _measured_factor(
            data, f"both together ({' and '.join(_INTERACTING)})", interaction, both, why
        ),
    ]


def _measured_factor(
    data: ComparisonData, name: str, factor: Interval, rows: str, reason: str = ""
) -> Factor:
    day = data.created[:10]
    if data.launcher == REPORTED:
        source = f"{rows}, reported {day}, not measured here"
        return Factor(name, Kind.DERIVED, factor, source, reason)
    how = _SCHEDULES.get(data.schedule, "not interleaved; the range excludes drift between them")
    blocks = [row.measurement.blocks for row in data.results]
    rounds, needed = min(map(count_rounds, blocks)), max(map(least_interval_rounds, blocks))
    few = f"too few rounds ({rounds}) for a CI; range shown"
    reason = "; ".join(filter(None, (reason, few if rounds < needed else "")))
    return Factor(name, Kind.MEASURED, factor, f"{rows}, {how}, {day}", reason)


def _row_like(
    rows: Sequence[BackendResult], name: str, change: str, taken_from: str
) -> BackendResult | None:
    """The row with a finite output that equals one row but for one change taken from another."""
    states: Mapping[str, Mapping[str, str]] = {row.backend: state_of(row) for row in rows}
    wanted = {**states[name], change: states[taken_from].get(change, "")}
    return next(
        (row for row in rows if states[row.backend] == wanted and has_finite_output(row)), None
    )


def fastest(data: ComparisonData) -> str:
    """Name of the row with the highest rate and a finite output; of any row where none has one.

    Args:
        data: a comparison with at least one row.
    """
    return max(_eligible(data), key=lambda name: rate_of(data, name))


def slowest(data: ComparisonData) -> str:
    """Name of the row with the lowest rate and a finite output; of any row where none has one.

    Args:
        data: a comparison with at least one row.
    """
    return min(_eligible(data), key=lambda name: rate_of(data, name))


def _eligible(data: ComparisonData) -> list[str]:
    names = [row.backend for row in data.results]
    return [row.backend for row in data.results if has_finite_output(row)] or names


def has_finite_output(row: BackendResult) -> bool:
    """Whether a row's output is finite wherever the reference's is.

    Args:
        row: of a comparison.
    """
    return row.agreement is None or not row.agreement.nonfinite_count


def rate_of(data: ComparisonData, name: str) -> float:
    """Items per second of a row; calls per second where the batch size is not known.

    Args:
        data: the comparison.
        name: of the row.
    """
    row = next(row for row in data.results if row.backend == name)
    return (row.batch_size or 1) / row.latency.value
