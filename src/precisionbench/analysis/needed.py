"""How many rounds or processes would make an inconclusive comparison conclusive.

The half-width of a speed-up has two parts. Noise within a process shrinks with the square root of
the rounds. Run-to-run variance does not: only more processes reduce it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from precisionbench.analysis.variation import (
    MIN_INTERVAL_ROUNDS,
    count_rounds,
    replicas,
    run_spread,
    shared_rounds,
    within_sd,
)
from precisionbench.results.comparison_data import BackendResult, ComparisonData
from precisionbench.results.measurement import Block
from precisionbench.statistics import Interval
from precisionbench.statistics.verdicts import ALPHA, MARGIN

# A comparison ends after this many rounds, whatever its budget.
_MOST_ROUNDS = 100
_MOST_REPLICAS = 16
# The target half-width, as a share of the largest one that allows a verdict.
_AIM = 0.8
# Share of an unknown budget that rounds take; warm-up takes the rest.
_SHARE_OF_ROUNDS = 0.75

_Rows = tuple[Sequence[Block], Sequence[Block]]


def rounds_needed(pair: _Rows, interval: Interval) -> int | None:
    """The number of rounds that would give two rows a verdict.

    Args:
        pair: the blocks of the two rows.
        interval: of their ratio, from the rounds that they share.

    Returns:
        The estimate; None where run-to-run variance alone is too large, or more than
        100 rounds would be needed.
    """
    rounds, share = shared_rounds(*pair), _within_share(pair)
    left = _wanted_shrinkage(interval) ** 2 - (1 - share)
    if left <= 0:
        return None
    count = max(math.ceil(rounds * share / left), rounds + 1)
    if not _has_replicas(pair):
        count = max(count, MIN_INTERVAL_ROUNDS)
    return count if count <= _MOST_ROUNDS else None


def budget_needed_s(data: ComparisonData, name: str, interval: Interval) -> float | None:
    """The budget in seconds that would give a row a verdict.

    The time of a round is computed from the samples. The rest is what they leave of the budget, or
    a quarter of it where the budget is not known.

    Args:
        data: the comparison.
        name: of the row.
        interval: of its speed-up.

    Returns:
        The estimate; None where no number of rounds is enough.
    """
    rows = {row.backend: row.measurement.blocks for row in data.results}
    needed = rounds_needed((rows[data.reference_of(name)], rows[name]), interval)
    if needed is None:
        return None
    rounds = max(map(count_rounds, rows.values()))
    measured_s = sum(map(_samples_s, data.results))
    given_s = (data.options or {}).get("budget_s")
    if not isinstance(given_s, (int, float)):
        return needed * measured_s / rounds / _SHARE_OF_ROUNDS
    return max(0.0, given_s - measured_s) + needed * measured_s / rounds


def replicas_needed(data: ComparisonData, name: str, interval: Interval) -> int | None:
    """The number of replicas of each row that would give a row a verdict.

    Args:
        data: the comparison.
        name: of the row.
        interval: of its speed-up.

    Returns:
        The estimate; None where more than 16 would be needed, or the spread is not known.
    """
    rows = {row.backend: row.measurement.blocks for row in data.results}
    count = min(len(replicas(rows[one])) for one in (data.reference_of(name), name))
    if count < 2:
        return None
    shrinkage, confidence = _wanted_shrinkage(interval), 1 - ALPHA / max(1, len(rows) - 1)
    now = _reach(count, len(rows), confidence)
    for wanted in range(count + 1, _MOST_REPLICAS + 1):
        if _reach(wanted, len(rows), confidence) <= shrinkage * now:
            return wanted
    return None


def _reach(count: int, rows: int, confidence: float) -> float:
    """The half-width with this number of replicas of each row, in units that cancel."""
    from scipy.special import stdtrit

    return float(stdtrit(rows * (count - 1), (1 + confidence) / 2)) / math.sqrt(count)


def _wanted_shrinkage(interval: Interval) -> float:
    """The factor by which the half-width must change for a verdict, below 1 if it must shrink."""
    effect, margin = abs(math.log(interval.value)), math.log1p(MARGIN)
    reach = math.log(interval.high / interval.low) / 2
    return _AIM * max(effect, margin - effect) / reach if reach else 1.0


def _within_share(pair: _Rows) -> float:
    """The share of the variance of replicas' levels that is noise within a process."""
    rows = [blocks for blocks in pair if len(replicas(blocks)) > 1]
    total = run_spread({str(i): blocks for i, blocks in enumerate(rows)}).sd ** 2
    noise = within_sd(pair) ** 2 / shared_rounds(*pair)
    return min(1.0, noise / total) if total else 1.0


def _has_replicas(pair: Iterable[Sequence[Block]]) -> bool:
    return min(len(replicas(blocks)) for blocks in pair) > 1


def _samples_s(row: BackendResult) -> float:
    """The time of a row's samples, in seconds."""
    measurement = row.measurement
    calls = measurement.calls_per_sample
    return sum(sum(block.samples) for block in measurement.blocks) * calls
