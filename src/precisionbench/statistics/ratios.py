"""Ratios of two backends' latencies, with confidence intervals.

There are three kinds of variation. Within a process, blocks vary, and drift affects everything that
is measured in the same round. Run-to-run variance is a difference between processes that each
process keeps until it ends: on an H200 there are two kinds of process, 0.4 % apart
(docs/between-processes.md). A single process of each backend does not show it. And load of the host
can delay all processes of one backend in some rounds, but not those of another.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import attrs

from precisionbench.display import Shown
from precisionbench.statistics.interaction import changing_ratios
from precisionbench.statistics.intervals import Interval
from precisionbench.statistics.levels import levels

# The spread pooled over a run is used unless two rows' own spread is more than twice as large.
_MIN_POOLED_SHARE = 0.5


@attrs.frozen(repr=False)
class Spread(Shown):
    """The spread between replicas of the same backend.

    Attributes:
        sd: standard deviation between replicas, of the log of their level (0.002 is 0.2 %).
        degrees: degrees of freedom of the estimate.
    """

    sd: float
    degrees: float


def unpaired_ratio_interval(base: Interval, other: Interval) -> Interval:
    """The ratio base / other with the widest interval that the two intervals allow.

    It assumes nothing about how the two were measured, so it is too wide for a verdict.
    """
    return Interval(base.value / other.value, base.low / other.high, base.high / other.low)


def ratio_interval(
    base: Sequence[float],
    other: Sequence[float],
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
    spread: Spread | None = None,
    noise_floor: float = 0.0,
) -> Interval:
    """The ratio base / other of two backends that were measured in the same rounds.

    With one group: the Hodges-Lehmann estimate of the log ratio and the interval of Wilcoxon's
    signed-rank test (Hollander & Wolfe, Nonparametric Statistical Methods, section 3.3). It covers
    this pair of processes only, unless `noise_floor` widens it.

    With several: each replica has one level, the median over its rounds of the difference from the
    round's own level. The ratio is that of the mean levels, with Student's t for the spread between
    replicas; noise within a process is part of that spread. Where the ratio changes between rounds
    in all replicas at once, the interval reaches as far as that over rounds, too.

    Args:
        base: block values of each round, in seconds.
        other: those of the other backend in the same rounds; `other[i]` belongs to `base[i]`.
        confidence: probability that the interval holds the ratio.
        groups: for each pair, the replica that both values come from.
        spread: between replicas, where more rows than these two are known; it must include them.
        noise_floor: standard deviation of the log between processes, known for this device. The
            spread is at least that, because a few replicas can agree by chance.

    Returns:
        Above 1 where `other` is the faster one. With one group and fewer rounds than the confidence
        requires (6 at 0.95) the interval is the range of the ratios.

    Raises:
        ValueError: the lengths differ or are 0, or a value is not a positive number.
    """
    logs = _logs(base), _logs(other)
    labels = _labels(groups, *map(len, logs))
    if len(set(labels)) == 1:
        within = signed_rank_interval([b - o for b, o in zip(*logs, strict=True)], confidence)
        return widened(within, noise_floor, confidence).exp()
    sides = _by_group_and_round(*logs, labels)
    first, second = ([*found.values()] for found in levels(sides))
    between = sessions_interval([(first, second)], confidence, spread, noise_floor)
    return including_rounds(between, changing_ratios([sides]), confidence).exp()


def _labels(groups: Sequence[Hashable] | None, count: int, others: int) -> Sequence[Hashable]:
    """The group of each pair; one group for all where none are given."""
    if not count or count != others:
        raise ValueError(f"{count} and {others} values are not pairs of rounds")
    if groups is not None and len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} values; give one for each")
    return [None] * count if groups is None else groups


def _logs(values: Sequence[float]) -> list[float]:
    if not all(0 < value < math.inf for value in values):
        raise ValueError("a block's value must be a positive number of seconds")
    return [math.log(value) for value in values]


def signed_rank_interval(differences: Sequence[float], confidence: float) -> Interval:
    """The Hodges-Lehmann estimate of the centre, with its signed-rank interval.

    Args:
        differences: one for each round.
        confidence: probability that the interval holds the centre.
    """
    import numpy as np

    d = np.asarray(differences, dtype=float)
    rows, columns = np.triu_indices(len(d))
    walsh = np.sort((d[rows] + d[columns]) / 2)
    rank = max(1, signed_rank_rank(len(d), confidence))
    return Interval(float(np.median(walsh)), float(walsh[rank - 1]), float(walsh[-rank]))


@cache
def signed_rank_rank(count: int, confidence: float = 0.95) -> int:
    """The rank of the Walsh averages at which the interval ends, counted from 1 at either end.

    It is the largest c with P(T+ <= c - 1) <= (1 - confidence) / 2 in the exact null distribution
    of the signed-rank statistic T+; 0 where there are too few rounds for that confidence.

    Args:
        count: number of rounds.
        confidence: e.g. 0.95.
    """
    ways = [1]
    for rank in range(1, count + 1):  # each rank is in the sum or not
        ways = [
            (ways[s] if s < len(ways) else 0) + (ways[s - rank] if s >= rank else 0)
            for s in range(len(ways) + rank)
        ]
    limit, cumulative = (1 - confidence) / 2 * 2**count, 0
    for c, number in enumerate(ways):
        cumulative += number
        if cumulative > limit:
            return c
    return len(ways)


def widened(interval: Interval, noise_floor: float, confidence: float) -> Interval:
    """An interval of one process each, widened to include run-to-run variance.

    The known difference between two processes, z sqrt(2) noise_floor, is added in quadrature.

    Args:
        interval: of a log ratio, from one process each.
        noise_floor: standard deviation of the log between processes.
        confidence: probability that the interval holds the log ratio.
    """
    from scipy.special import ndtri

    reach = float(ndtri((1 + confidence) / 2)) * math.sqrt(2) * noise_floor
    return in_quadrature(interval, reach)


def in_quadrature(interval: Interval, reach: float) -> Interval:
    """An interval with another half-width added in quadrature.

    Args:
        interval: of a log ratio.
        reach: the other half-width.
    """
    down = math.hypot(interval.value - interval.low, reach)
    up = math.hypot(interval.high - interval.value, reach)
    return Interval(interval.value, interval.value - down, interval.value + up)


def including_rounds(
    between: Interval, differences: Sequence[float], confidence: float
) -> Interval:
    """An interval over processes that also reaches as far as that over rounds.

    What delays all processes of a row in some rounds is not in the spread between them. With too
    few rounds for a signed-rank interval of that confidence, it is Student's t over the rounds.

    Args:
        between: of the log ratio, over processes.
        differences: the log ratio in each round, from `changing_ratios`; with none the interval
            stays as it is.
        confidence: probability that an interval holds the log ratio.
    """
    if not differences:
        return between
    is_rank = signed_rank_rank(len(differences), confidence) > 0
    within = (signed_rank_interval if is_rank else mean_level_interval)(differences, confidence)
    return Interval(between.value, min(between.low, within.low), max(between.high, within.high))


def _by_group_and_round(
    base: Sequence[float], other: Sequence[float], groups: Sequence[Hashable]
) -> tuple[dict[Any, float], dict[Any, float]]:
    """The values of either side; the position within a group is the round."""
    rounds: dict[Hashable, int] = {}
    sides: tuple[dict[Any, float], dict[Any, float]] = ({}, {})
    for b, o, group in zip(base, other, groups, strict=True):
        index = rounds.setdefault(group, 0)
        rounds[group] += 1
        sides[0][group, index], sides[1][group, index] = b, o
    return sides


def pooled_spread(rows: Sequence[Sequence[float]]) -> Spread:
    """The spread between replicas, pooled over all rows of a run.

    Rows are assumed to have the same relative spread, because it depends on the placement of the
    process in the device and not on the code; for a row that varies more than the others, its own
    spread is used (see `sessions_interval`).

    Args:
        rows: for each, the levels of its replicas, as logs.
    """
    squares = sum(sum((x - sum(row) / len(row)) ** 2 for x in row) for row in rows if row)
    degrees = sum(len(row) - 1 for row in rows if row)
    return Spread(math.sqrt(squares / degrees) if degrees else 0.0, degrees)


def level_interval(
    base: Sequence[float],
    other: Sequence[float],
    confidence: float,
    spread: Spread | None = None,
    noise_floor: float = 0.0,
) -> Interval:
    """The log ratio of two rows' mean levels in one session; see `sessions_interval`.

    Args:
        base: levels of the replicas of one row, as logs.
        other: those of the other row.
        confidence: probability that the interval holds the log ratio.
        spread: between processes, pooled over all rows of the run.
        noise_floor: standard deviation between processes, known for this device.
    """
    return sessions_interval([(base, other)], confidence, spread, noise_floor)


def sessions_interval(
    sessions: Sequence[Sequence[Sequence[float]]],
    confidence: float,
    spread: Spread | None = None,
    noise_floor: float = 0.0,
) -> Interval:
    """The log ratio of two rows' mean levels over sessions, with Student's t interval.

    Each session has its own processes. Its shift affects both rows and cancels. The spread is that
    of these two rows, or the pooled one where it is at least half of that, and at least the noise
    floor. Where every session has one process of each row, the interval is Student's t over the
    sessions' differences.

    Args:
        sessions: for each, the log levels of the one row's replicas and of the other's.
        confidence: probability that the interval holds the log ratio.
        spread: between processes, pooled over all rows of the run.
        noise_floor: standard deviation between processes, known for this device.
    """
    differences = [sum(b) / len(b) - sum(o) / len(o) for b, o in sessions]
    count = len(differences)
    value = sum(differences) / count
    factor = math.sqrt(sum(1 / len(b) + 1 / len(o) for b, o in sessions)) / count
    own = pooled_spread([row for pair in sessions for row in pair])
    used = spread if spread and spread.sd >= _MIN_POOLED_SHARE * own.sd else own
    if not own.degrees and count > 1:
        used = _spread_over_sessions(differences)
    reach = _reach(used, noise_floor, confidence) * factor
    return Interval(value, value - reach, value + reach)


def mean_level_interval(
    levels: Sequence[float],
    confidence: float,
    spread: Spread | None = None,
    noise_floor: float = 0.0,
) -> Interval:
    """The mean level of a row's processes, with Student's t interval for other processes.

    The spread between processes is the row's own, or the pooled one where it is at least half of
    that, and at least the noise floor.

    Args:
        levels: of the row's replicas, as logs.
        confidence: probability that the interval holds the mean over all possible processes.
        spread: between processes, pooled over all rows of the run.
        noise_floor: standard deviation between processes, known for this device.
    """
    value = sum(levels) / len(levels)
    used = spread_of_levels(levels, spread)
    reach = _reach(used, noise_floor, confidence) / math.sqrt(len(levels))
    return Interval(value, value - reach, value + reach)


def spread_of_levels(levels: Sequence[float], spread: Spread | None) -> Spread:
    """The spread that holds for a row: the pooled one where it is at least half of the row's own.

    Args:
        levels: of the row's replicas, as logs.
        spread: between processes, pooled over all rows of the run.
    """
    own = pooled_spread([levels])
    return spread if spread and spread.sd >= _MIN_POOLED_SHARE * own.sd else own


def _spread_over_sessions(differences: Sequence[float]) -> Spread:
    """The spread between processes, from sessions that have one process of each row."""
    centre = sum(differences) / len(differences)
    squares = sum((difference - centre) ** 2 for difference in differences)
    degrees = len(differences) - 1
    return Spread(math.sqrt(squares / degrees / 2), degrees)


def _reach(spread: Spread, noise_floor: float, confidence: float) -> float:
    """The half-width of the interval of one process's level."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    seen = float(stdtrit(spread.degrees, tail)) * spread.sd if spread.degrees else 0.0
    return max(seen, float(ndtri(tail)) * noise_floor)
