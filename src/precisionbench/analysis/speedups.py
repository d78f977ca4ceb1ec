"""From a run's blocks to speed-ups: which statistics its way of measuring allows.

`rounds`: all replicas alive at once, one block of each in every round, in a random order. Drift
cancels within a round, and replicas tell how much processes differ.
`restarts`: the device cannot hold all rows at once; in each round every row is started anew. The
differences between processes are in the rounds then, and drift cancels only as far as a round is
short.
`sequential`: one row after another; nothing cancels, so there is no verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from statistics import median

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench.results.records import BackendResult, Block, ComparisonData, Speedup
from precisionbench.statistics import (
    Interval,
    Spread,
    Verdict,
    pooled_spread,
    ratio_interval,
    unpaired_ratio_interval,
    verdicts,
)
from precisionbench.statistics.ratios import has_complete_round, levels, sessions_interval

# Fewer rounds give no 95 % interval.
FLOOR_ROUNDS = 6
# What processes of the same code are taken to differ by, as a log, where nobody has measured it
# (docs/between-processes.md), by the type of device.
KNOWN_SPREAD: Mapping[str, float] = {"cuda": 0.0025}
Rows = Mapping[str, Sequence[Block]]


@cached_by_identity
def speedups(data: ComparisonData) -> Mapping[str, Speedup]:
    """How many times as fast as the reference each row is; empty if the reference failed.

    Rows whose calls serve different numbers of items are compared by items per second. The result
    is computed once per comparison.

    Args:
        data: the comparison.
    """
    rows = {row.backend: row for row in data.results}
    if data.reference not in rows:
        return {}
    found = {data.reference: Speedup(1.0, 1.0, 1.0, Verdict.INCONCLUSIVE, "reference")}
    others = [name for name in rows if name != data.reference]
    if data.schedule == "sequential":
        base = rows[data.reference].latency
        for name in others:
            ratio = unpaired_ratio_interval(base, rows[name].latency)
            scaled = _times(ratio, _items(rows, data.reference, name))
            found[name] = _speedup(scaled, Verdict.INCONCLUSIVE, "not_interleaved")
        return found
    blocks = {name: row.measurement.blocks for name, row in rows.items()}
    share = partial(_share_rounds, blocks, data.reference, schedule=data.schedule)
    apart = {name for name in others if not share(name)}
    for name in apart:
        ratio = unpaired_ratio_interval(rows[data.reference].latency, rows[name].latency)
        scaled = _times(ratio, _items(rows, data.reference, name))
        found[name] = _speedup(scaled, Verdict.INCONCLUSIVE, "no_shared_rounds")
    comparisons = {
        name: partial(
            _ratio,
            blocks,
            data.reference,
            name,
            data.noise_floor,
            data.schedule,
            items=_items(rows, data.reference, name),
        )
        for name in others
        if name not in apart
    }
    for name, (interval, verdict, reason) in verdicts(comparisons).items():
        if shared_rounds(blocks[data.reference], blocks[name]) < FLOOR_ROUNDS:
            verdict, reason = Verdict.INCONCLUSIVE, "too_few_rounds"
        found[name] = _speedup(interval, verdict, reason)
    return found


def per_item_ratio(data: ComparisonData, base: str, other: str) -> Interval:
    """How many times as many items per second a row serves as another one (95 %).

    Args:
        data: the comparison.
        base: name of a row.
        other: name of another.
    """
    rows = {row.backend: row for row in data.results}
    items = _items(rows, base, other)
    blocks = {name: row.measurement.blocks for name, row in rows.items()}
    if data.schedule == "sequential" or not _share_rounds(blocks, base, other, data.schedule):
        return _times(unpaired_ratio_interval(rows[base].latency, rows[other].latency), items)
    return _ratio(blocks, base, other, data.noise_floor, data.schedule, 0.95, items)


def _items(rows: Mapping[str, BackendResult], base: str, other: str) -> float:
    """How many times as many items a call of a row serves as one of another row."""
    mine, theirs = rows[base].batch_size, rows[other].batch_size
    return theirs / mine if mine and theirs else 1.0


def _times(ratio: Interval, items: float) -> Interval:
    return Interval(ratio.value * items, ratio.low * items, ratio.high * items)


def _share_rounds(rows: Rows, base: str, name: str, schedule: str) -> bool:
    """Whether there is a round in which all processes of two rows took part."""
    pair = rows[base], rows[name]
    return bool(shared_rounds(*pair) if schedule == "restarts" else session_levels(pair))


def _speedup(interval: Interval, verdict: Verdict, reason: str) -> Speedup:
    return Speedup(interval.value, interval.low, interval.high, verdict, reason)


def _ratio(
    rows: Rows,
    reference: str,
    name: str,
    floor: float,
    schedule: str,
    confidence: float,
    items: float = 1.0,
) -> Interval:
    if schedule == "restarts":
        return _times(_by_round_only(rows[reference], rows[name], confidence), items)
    return _times(ratio_of(rows, reference, name, confidence, floor), items)


def ratio_of(
    rows: Rows, reference: str, name: str, confidence: float, floor: float = 0.0
) -> Interval:
    """The ratio reference / row of rows measured in the same rounds.

    Args:
        rows: the blocks of every row of the run.
        reference: name of the base.
        name: name of the other.
        confidence: probability that the interval holds the ratio.
        floor: spread between processes that is known of this device, as a log.
    """
    pair = rows[reference], rows[name]
    sessions = session_levels(pair)
    if len(sessions) == 1 and min(map(len, sessions[0])) < 2:
        return _one_replica(*pair, confidence, floor)
    pairs = [(base, other) for base, other in sessions]
    return sessions_interval(pairs, confidence, run_spread(rows), floor).exp()


def _one_replica(
    base: Sequence[Block], other: Sequence[Block], confidence: float, floor: float
) -> Interval:
    ours, theirs = _round_medians(base), _round_medians(other)
    shared = [key for key in ours if key in theirs]
    pairs = [ours[key] for key in shared], [theirs[key] for key in shared]
    return ratio_interval(*pairs, confidence=confidence, floor=floor)


def _by_round_only(base: Sequence[Block], other: Sequence[Block], confidence: float) -> Interval:
    return _one_replica(base, other, confidence, 0.0)


def _round_medians(blocks: Sequence[Block]) -> dict[Hashable, float]:
    found: dict[Hashable, list[float]] = {}
    for block in blocks:
        found.setdefault((block.session, block.round), []).append(block.median_s)
    return {key: median(values) for key, values in found.items()}


def shared_rounds(base: Sequence[Block], other: Sequence[Block]) -> int:
    """Rounds in which both rows were measured."""
    return len(_round_medians(base).keys() & _round_medians(other).keys())


def replicas(blocks: Sequence[Block]) -> set[tuple[int, int]]:
    """The fresh preparations that blocks come from, by (session, replica)."""
    return {(block.session, block.replica) for block in blocks}


def session_levels(rows: Sequence[Sequence[Block]]) -> list[list[list[float]]]:
    """For each session and each row, the levels of its processes as logs, what is common to a
    round taken off.

    Sessions in which not all rows were measured in some round are left out: what is common to a
    round is not known there.

    Args:
        rows: blocks of rows that were measured in the same rounds.
    """
    found = []
    for session in sorted({block.session for blocks in rows for block in blocks}):
        tables = [
            {(b.replica, b.round): math.log(b.median_s) for b in blocks if b.session == session}
            for blocks in rows
        ]
        if all(tables) and has_complete_round(tables):
            found.append([list(level.values()) for level in levels(tables)])
    return found


def run_spread(rows: Rows) -> Spread:
    """How much replicas of the same session differ, over all rows of a run.

    Args:
        rows: the blocks of every row.
    """
    return pooled_spread(
        [row for blocks in rows.values() for (row,) in session_levels([blocks]) if len(row) > 1]
    )


def round_shifts(rows: Sequence[Sequence[Block]]) -> list[float]:
    """How far each round lay from the run's level, as a log, in what all its processes share.

    Args:
        rows: blocks of every row of a run.
    """
    found: dict[Hashable, list[float]] = {}
    for blocks in rows:
        levels = process_levels(blocks)
        for block in blocks:
            beyond = math.log(block.median_s) - levels[block.session, block.replica]
            found.setdefault((block.session, block.round), []).append(beyond)
    return [sum(values) / len(values) for values in found.values()]


def process_levels(blocks: Sequence[Block]) -> dict[tuple[int, int], float]:
    """The level of each (session, replica) by itself, as a log: the median of its blocks.

    Nothing that is common to a round is taken off: it is for runs that share no rounds.

    Args:
        blocks: of one row.
    """
    return {key: median(logs) for key, logs in _logs_by_replica(blocks).items()}


def within_share(blocks: Sequence[Block]) -> float:
    """Which share of the variance of replicas' levels is noise within a process.

    That share falls with more rounds; the rest stays.

    Args:
        blocks: of one row.
    """
    tables = [*_logs_by_replica(blocks).values()]
    if len(tables) < 2:
        return 1.0
    noise = _step_variance(tables) / max(1, min(map(len, tables)))
    total = run_spread({"": blocks}).sd ** 2
    return min(1.0, noise / total) if total else 1.0


def within_sd(rows: Sequence[Sequence[Block]]) -> float:
    """How much blocks of the same process differ: standard deviation of the log.

    Args:
        rows: blocks of each row.
    """
    return math.sqrt(
        _step_variance([logs for blocks in rows for logs in _logs_by_replica(blocks).values()])
    )


def _logs_by_replica(blocks: Sequence[Block]) -> dict[tuple[int, int], list[float]]:
    found: dict[tuple[int, int], list[float]] = {}
    for block in blocks:
        found.setdefault((block.session, block.replica), []).append(math.log(block.median_s))
    return found


def _step_variance(tables: Sequence[Sequence[float]]) -> float:
    """Variance of single blocks, from the robust size of the steps between neighbours."""
    steps = [abs(b - a) for logs in tables for a, b in itertools.pairwise(logs)]
    return (median(steps) / (0.6745 * math.sqrt(2))) ** 2 if steps else 0.0
