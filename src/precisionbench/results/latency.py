"""The latency of a row: its estimate, and the interval that another run should fall into.

Each process has its own level, for its lifetime (run-to-run variance); on a GPU that is the larger
part of the variance (docs/between-processes.md). So a row's latency is the mean level of its
replicas, and its interval covers the variance between processes as well as within them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import attrs

from precisionbench.results.grouping import ReplicaKey, by_replica, by_round
from precisionbench.results.measurement import Block
from precisionbench.statistics import Interval, Spread, pooled_spread, quantile_interval
from precisionbench.statistics.ratios import mean_level_interval

_CONFIDENCE = 0.95
_LEAST = 1e-3  # of a value: a lower end says only that nothing is known
# Run-to-run standard deviation of the log latency, by type of device, where it was not measured
# (docs/between-processes.md).
_NOISE_FLOORS: Mapping[str, float] = {"cuda": 0.0025}


def known_noise_floor(device: str) -> float:
    """The standard deviation of the log latency between processes on such a device.

    It is used where nobody has measured it on this machine; 0 where none is known.

    Args:
        device: such as `cuda`, `cuda:0` or `cpu`.
    """
    return _NOISE_FLOORS.get(device.partition(":")[0], 0.0)


def replica_levels(blocks: Sequence[Block]) -> dict[ReplicaKey, float]:
    """The log level of each (session, replica): the median of its blocks.

    Round effects are not subtracted, so that runs which share no rounds can be compared.

    Args:
        blocks: blocks of one row.
    """
    return {
        key: median(math.log(block.median_s) for block in group)
        for key, group in by_replica(blocks).items()
    }


def processes(blocks: Sequence[Block], schedule: str) -> Sequence[Block]:
    """Blocks whose replica numbers identify processes.

    Args:
        blocks: blocks of one row.
        schedule: of the run; with `restarts` every round has a process of its own.
    """
    if schedule != "restarts":
        return blocks
    return [attrs.evolve(block, replica=block.round) for block in blocks]


def process_spread(rows: Iterable[Sequence[Block]]) -> Spread:
    """The spread between processes (run-to-run variance), pooled over the rows of a run.

    Args:
        rows: the blocks of each row, one replica number for each process (see `processes`).
    """
    return pooled_spread([[*replica_levels(blocks).values()] for blocks in rows])


def latency_interval(
    blocks: Sequence[Block],
    spread: Spread | None = None,
    noise_floor: float = 0.0,
    step_s: float = 0.0,
) -> Interval:
    """The latency of a row in seconds, with a 95 % confidence interval for another run of it.

    The value is the geometric mean of the replicas' levels. The half-widths between processes
    (Student's t for the spread between replicas) and within them (the interval of the median of
    what samples are beyond their replica's level) are added in quadrature, as logs.

    Args:
        blocks: blocks of the row, one replica number for each process (see `processes`).
        spread: between processes, pooled over the rows of the run; None uses the row's own.
        noise_floor: standard deviation of the log between processes, known for this device.
        step_s: the smallest step of the clock, per call.
    """
    levels = replica_levels(blocks)
    between = mean_level_interval([*levels.values()], _CONFIDENCE, spread, noise_floor)
    rounds = [_relative_samples(group, levels) for group in by_round(blocks).values()]
    within = quantile_interval(rounds, resolution=step_s / math.exp(between.value))
    down, up = (abs(math.log(max(end, 1e-12) / within.value)) for end in (within.low, within.high))
    down = math.hypot(down, between.value - between.low)
    up = math.hypot(up, between.high - between.value)
    return Interval(between.value, between.value - down, between.value + up).exp()


def above_0(interval: Interval) -> Interval:
    """The interval of a time, which ends above 0 even where the clock's step is as long.

    Args:
        interval: of a positive value.
    """
    return attrs.evolve(interval, low=max(interval.low, _LEAST * interval.value))


def _relative_samples(blocks: Sequence[Block], levels: dict[ReplicaKey, float]) -> list[float]:
    """Samples as multiples of their replica's level."""
    return [
        sample / level
        for block in blocks
        for level in [math.exp(levels[block.replica_key])]
        for sample in block.samples
    ]
