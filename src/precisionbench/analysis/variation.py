"""How much the blocks of a run vary: between rounds, between replicas, and within a replica.

All levels are logarithms, so that differences are relative.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from precisionbench.results.grouping import ReplicaKey, RoundKey, by_replica, by_round, grouped
from precisionbench.results.latency import replica_levels
from precisionbench.results.measurement import Block
from precisionbench.statistics import Spread, pooled_spread
from precisionbench.statistics.levels import has_complete_round, levels
from precisionbench.statistics.series import noise_of_steps

# Fewer rounds than this cannot give a 95 % confidence interval of one process each.
MIN_INTERVAL_ROUNDS = 6
# Fewer rounds than this do not show how the blocks of several processes vary.
MIN_ROUNDS_OF_PROCESSES = 3

BlocksByRow = Mapping[str, Sequence[Block]]
SessionTables = list[list[dict[tuple[int, int], float]]]


def round_medians(blocks: Iterable[Block]) -> dict[RoundKey, float]:
    """The median of the block medians of each (session, round), in seconds per call.

    Args:
        blocks: blocks of one row.
    """
    return {
        key: median(block.median_s for block in group) for key, group in by_round(blocks).items()
    }


def log_ratios_by_round(base: Iterable[Block], other: Iterable[Block]) -> list[float]:
    """The log ratio of two rows' latencies in each round that both were measured in.

    Args:
        base: blocks of the row to divide.
        other: blocks of the row to divide by.
    """
    ours, theirs = round_medians(base), round_medians(other)
    return [math.log(ours[key]) - math.log(theirs[key]) for key in ours if key in theirs]


def shared_rounds(base: Sequence[Block], other: Sequence[Block]) -> int:
    """Number of rounds in which both rows were measured."""
    return len(by_round(base).keys() & by_round(other).keys())


def count_rounds(blocks: Iterable[Block]) -> int:
    """Number of rounds of all sessions in which a row was measured."""
    return len(by_round(blocks))


def least_interval_rounds(blocks: Sequence[Block]) -> int:
    """How many rounds an interval of a row needs: few where it has several processes at once.

    Args:
        blocks: blocks of one row.
    """
    has_replicas = len(blocks) > count_rounds(blocks)
    return MIN_ROUNDS_OF_PROCESSES if has_replicas else MIN_INTERVAL_ROUNDS


def replicas(blocks: Sequence[Block]) -> set[ReplicaKey]:
    """The (session, replica) keys of the replicas that blocks were measured on."""
    return {block.replica_key for block in blocks}


def session_levels(sessions: SessionTables) -> list[list[list[float]]]:
    """For each session and row, the log levels of its replicas, with the round effects subtracted.

    Args:
        sessions: from `session_tables`.
    """
    return [[list(level.values()) for level in levels(tables)] for tables in sessions]


def session_tables(rows: Sequence[Sequence[Block]]) -> SessionTables:
    """For each session and row, the logs of its block medians by (replica, round).

    Sessions without a round in which all rows were measured are left out, because their round
    effects cannot be estimated.

    Args:
        rows: blocks of rows that were measured in the same rounds.
    """
    by_session = [grouped(blocks, lambda block: block.session) for blocks in rows]
    sessions = sorted({number for own in by_session for number in own})
    found = [
        [{(b.replica, b.round): math.log(b.median_s) for b in own.get(n, ())} for own in by_session]
        for n in sessions
    ]
    return [tables for tables in found if all(tables) and has_complete_round(tables)]


def run_spread(rows: BlocksByRow) -> Spread:
    """The spread between replicas of the same session, pooled over all rows of a run.

    Args:
        rows: the blocks of every row.
    """
    return pooled_spread(
        [
            row
            for blocks in rows.values()
            for (row,) in session_levels(session_tables([blocks]))
            if len(row) > 1
        ]
    )


def beyond_replica(blocks: Sequence[Block]) -> list[tuple[Block, float]]:
    """Each block with its log median relative to the level of its replica.

    Args:
        blocks: blocks of one row.
    """
    own = replica_levels(blocks)
    return [(block, math.log(block.median_s) - own[block.replica_key]) for block in blocks]


def round_shifts(rows: Sequence[Sequence[Block]]) -> dict[RoundKey, float]:
    """How far all replicas together were from their levels in each round, as a log.

    Args:
        rows: blocks of every row of a run.
    """
    residuals = [pair for blocks in rows for pair in beyond_replica(blocks)]
    rounds = grouped(residuals, lambda pair: pair[0].round_key)
    return {key: mean(value for _, value in pairs) for key, pairs in rounds.items()}


def within_share(blocks: Sequence[Block], known_sd: float = 0.0) -> float:
    """The share of the variance of replicas' levels that is noise within a process.

    More rounds reduce that share; the rest stays.

    Args:
        blocks: blocks of one row.
        known_sd: standard deviation of the log between processes that other rows or the device
            show; the row's own spread counts where it is larger.
    """
    tables = [*_logs_by_replica(blocks).values()]
    noise = _step_variance(tables) / max(1, min(map(len, tables)))
    seen = run_spread({"": blocks}).sd ** 2 if len(tables) > 1 else noise + known_sd**2
    total = max(seen, known_sd**2)
    return min(1.0, noise / total) if total else 1.0


def within_sd(rows: Sequence[Sequence[Block]]) -> float:
    """The standard deviation of the log latency between blocks of the same replica.

    Args:
        rows: blocks of each row.
    """
    return math.sqrt(
        _step_variance([logs for blocks in rows for logs in _logs_by_replica(blocks).values()])
    )


def _logs_by_replica(blocks: Sequence[Block]) -> dict[ReplicaKey, list[float]]:
    return {
        key: [math.log(block.median_s) for block in group]
        for key, group in by_replica(blocks).items()
    }


def _step_variance(tables: Sequence[Sequence[float]]) -> float:
    """Variance of single blocks, from the robust size of the steps between neighbours."""
    steps = [abs(b - a) for logs in tables for a, b in itertools.pairwise(logs)]
    return noise_of_steps(steps) ** 2 if steps else 0.0
