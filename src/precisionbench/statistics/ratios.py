"""How many times as fast one backend is as another, and how sure that is.

Two levels of variation matter. Within a process, blocks vary, and drift is common to all that is
measured in the same round. Between processes of the same code there is a difference that each
process keeps for life: on an H200 two kinds of process, 0.4 % apart (docs/between-processes.md).
One process a backend cannot know of it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

from precisionbench.statistics.intervals import Interval

# A pair whose own spread is more than twice that of the whole run is not like the other rows.
_TRUSTED_SHARE = 0.5


@attrs.frozen
class Spread:
    """How much replicas of the same backend differ.

    Attributes:
        sd: standard deviation between replicas, of the log of their level (0.002 is 0.2 %).
        degrees: degrees of freedom that it rests on.
    """

    sd: float
    degrees: float


def unpaired_ratio_interval(base: Interval, other: Interval) -> Interval:
    """The ratio base / other with the widest interval that the two intervals allow.

    It assumes nothing about how the two were measured, so it is wide; it is no verdict.
    """
    return Interval(base.value / other.value, base.low / other.high, base.high / other.low)


def ratio_interval(
    base: Sequence[float],
    other: Sequence[float],
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
    spread: Spread | None = None,
    floor: float = 0.0,
) -> Interval:
    """The ratio base / other of what was measured in the same rounds.

    With one group: the Hodges-Lehmann estimate of the log ratio and the interval of Wilcoxon's
    signed-rank test (Hollander & Wolfe, Nonparametric Statistical Methods, section 3.3). It speaks
    of this pair of processes alone.

    With several: each replica has one level, the median over its rounds of what it took beyond the
    round's own level. The ratio is that of the mean levels, with Student's t for the spread between
    replicas; noise within a process is part of that spread.

    Args:
        base: block values of each round, in seconds.
        other: those of the other backend in the same rounds; `other[i]` belongs to `base[i]`.
        confidence: probability that the interval holds the ratio.
        groups: for each pair, the replica that both values come from.
        spread: between replicas, where more rows than these two are known; it must include them.
        floor: standard deviation between processes that is known of this device, as a log; the
            spread is taken to be at least that, because a few replicas can be alike by chance.

    Returns:
        Above 1 where `other` is the faster one. With fewer rounds than the confidence needs (6 at
        0.95) and one group the interval is the range of the ratios.

    Raises:
        ValueError: there is nothing to compare, or a value is no positive number.
    """
    logs = _logs(base), _logs(other)
    if not logs[0] or len(logs[0]) != len(logs[1]):
        raise ValueError(f"{len(logs[0])} and {len(logs[1])} values make no pairs of rounds")
    labels = list(groups) if groups is not None else [None] * len(base)
    if len(labels) != len(base):
        raise ValueError(f"{len(labels)} groups for {len(base)} values; give one for each")
    kinds = list(dict.fromkeys(labels))
    if len(kinds) == 1:
        within = signed_rank_interval([b - o for b, o in zip(*logs, strict=True)], confidence)
        return widened(within, floor, confidence).exp()
    levels = paired_levels(logs[0], logs[1], labels)
    return level_interval(*levels, confidence=confidence, spread=spread, floor=floor).exp()


def _logs(values: Sequence[float]) -> list[float]:
    if not all(0 < value < math.inf for value in values):
        raise ValueError("a block's value must be a positive number of seconds")
    return [math.log(value) for value in values]


def signed_rank_interval(differences: Sequence[float], confidence: float) -> Interval:
    """The Hodges-Lehmann estimate and its signed-rank interval.

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
    """Which of the sorted Walsh averages ends the interval, counted from 1 at either end.

    It is the largest c with P(T+ <= c - 1) <= (1 - confidence) / 2 in the exact null distribution
    of the signed-rank statistic T+; 0 where so few rounds cannot give that confidence.

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


def widened(interval: Interval, floor: float, confidence: float) -> Interval:
    """An interval of one pair of processes, for processes in general.

    The known difference between two processes, z sqrt(2) floor, is added in quadrature.

    Args:
        interval: of a log ratio, from one process each.
        floor: standard deviation between processes, as a log.
        confidence: of the interval.
    """
    from scipy.special import ndtri

    reach = float(ndtri((1 + confidence) / 2)) * math.sqrt(2) * floor
    down = math.hypot(interval.value - interval.low, reach)
    up = math.hypot(interval.high - interval.value, reach)
    return Interval(interval.value, interval.value - down, interval.value + up)


def paired_levels(
    base: Sequence[float], other: Sequence[float], groups: Sequence[Hashable]
) -> tuple[list[float], list[float]]:
    """Each replica's level on either side, as logs.

    Position within a group is the round; what is common to a round is taken off first.
    """
    rounds: dict[Hashable, int] = {}
    sides: tuple[dict[Any, float], dict[Any, float]] = ({}, {})
    for b, o, group in zip(base, other, groups, strict=True):
        index = rounds.setdefault(group, 0)
        rounds[group] += 1
        sides[0][group, index], sides[1][group, index] = b, o
    first, second = levels([sides[0], sides[1]])
    return list(first.values()), list(second.values())


def levels(
    rows: Sequence[Mapping[Any, float]],
) -> list[dict[Hashable, float]]:
    """For each row, each replica's level: the median over rounds of what it is beyond the round's.

    Only rounds in which every replica of every row was measured count, so that what is common to
    a round, such as drift, cancels.

    Args:
        rows: for each, log values by (replica, round).

    Raises:
        ValueError: no round is complete.
    """
    import numpy as np

    replicas = [(i, replica) for i, row in enumerate(rows) for replica in _replicas(row)]
    shared = _complete_rounds(rows)
    if not shared:
        raise ValueError("no round holds every replica")
    table = np.array([[rows[i][replica, r] for r in shared] for i, replica in replicas])
    table = table - table.mean(axis=0)
    found: list[dict[Hashable, float]] = [{} for _ in rows]
    for (i, replica), values in zip(replicas, table, strict=True):
        found[i][replica] = float(np.median(values))
    return found


def _replicas(row: Mapping[Any, float]) -> list[Hashable]:
    return list(dict.fromkeys(replica for replica, _ in row))


def has_complete_round(rows: Sequence[Mapping[Any, float]]) -> bool:
    """Whether there is a round in which every replica of every row was measured.

    Args:
        rows: as for `levels`.
    """
    return bool(_complete_rounds(rows))


def _complete_rounds(rows: Sequence[Mapping[Any, float]]) -> list[Hashable]:
    sets = [
        {r for replica, r in row if replica == wanted} for row in rows for wanted in _replicas(row)
    ]
    return [r for r in dict.fromkeys(r for _, r in rows[0]) if all(r in known for known in sets)]


def pooled_spread(rows: Sequence[Sequence[float]]) -> Spread:
    """How much replicas differ, from all rows of a run.

    Rows are taken to have the same spread, in percent, because it comes from where the process
    lies in the device and not from the code; a row that varies more than all together counts by
    itself (see `level_interval`).

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
    floor: float = 0.0,
) -> Interval:
    """The log ratio of two rows' mean levels with Student's t interval.

    The spread is that of these two rows, or of all rows where that is known and no smaller than
    half of it, and at least the floor.

    Args:
        base: levels of the replicas of one row, as logs.
        other: those of the other row.
        confidence: probability that the interval holds the log ratio.
        spread: of all rows of the run together.
        floor: standard deviation between processes known of this device.
    """
    return sessions_interval([(base, other)], confidence, spread, floor)


def sessions_interval(
    sessions: Sequence[tuple[Sequence[float], Sequence[float]]],
    confidence: float,
    spread: Spread | None = None,
    floor: float = 0.0,
) -> Interval:
    """The same over several sessions, each with processes of its own.

    What a session shifts is in both rows and cancels. Where every session has one process of each
    row, sessions stand for themselves: Student's t over their differences.

    Args:
        sessions: for each, the levels of the one row's replicas and of the other's.
        confidence: probability that the interval holds the log ratio.
        spread: between processes, of all rows of the run together.
        floor: standard deviation between processes known of this device.
    """
    differences = [sum(b) / len(b) - sum(o) / len(o) for b, o in sessions]
    count = len(differences)
    factor = math.sqrt(sum(1 / len(b) + 1 / len(o) for b, o in sessions)) / count
    own = pooled_spread([row for pair in sessions for row in pair])
    used = spread if spread and spread.sd >= _TRUSTED_SHARE * own.sd else own
    value = sum(differences) / count
    if not own.degrees and count > 1:
        squares = sum((d - value) ** 2 for d in differences)
        used = Spread(math.sqrt(squares / (count - 1) / 2), count - 1)
    reach = _reach(used, floor, confidence) * factor
    return Interval(value, value - reach, value + reach)


def _reach(spread: Spread, floor: float, confidence: float) -> float:
    """How far one process's level may lie from the mean of all."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    seen = float(stdtrit(spread.degrees, tail)) * spread.sd if spread.degrees else 0.0
    return max(seen, float(ndtri(tail)) * floor)
