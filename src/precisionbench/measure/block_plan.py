"""How long warm-up lasts and how many calls a block holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import median

from precisionbench.measure.schedule import RowState, least_rounds
from precisionbench.results.grouping import grouped
from precisionbench.statistics import has_settled

_BLOCK_S = 0.05
# A block has 5 samples, or 3 where these are long: its median then still has one on either side.
_MIN_SAMPLES = 5
_LONG_SAMPLE_S = 0.02
_MIN_LONG_SAMPLES = 3
_SETTLE_S = 0.02
_MIN_SETTLE_CALLS = 2
_MAX_SETTLE_SHARE = 0.25  # of a block's calls; one call settles in any case
_WARMUP_S = 0.3  # for each row
_WARMUP_BLOCKS = 2  # for each replica
_NOISE_BLOCKS = 8  # the last ones, from which the noise between neighbours is read


def plan_warmup(row_states: Sequence[RowState]) -> None:
    """Set the size of warm-up blocks, and how many calls a sample spans from then on.

    Args:
        row_states: rows whose replicas are prepared; changed in place.
    """
    for row_state in row_states:
        opening, call_s = row_state.replicas[0].opening, row_state.call_s
        shortest_s = max(call_s, opening.resolution_s)
        row_state.calls_per_sample = max(1, math.ceil(opening.min_sample_s / shortest_s))
        plan_warmup_block(row_state)
        row_state.warmup_calls = [0] * len(row_state.replicas)


def plan_warmup_block(row_state: RowState) -> None:
    """Set the size of the next warm-up block by how long calls have taken so far.

    Args:
        row_state: of a row whose warm-up is planned; changed in place.
    """
    sample_s = row_state.mean_call_s * row_state.calls_per_sample
    row_state.samples = max(1, math.ceil(_BLOCK_S / sample_s))


def is_warm(row_state: RowState, blocks: Sequence[tuple[int, float]]) -> bool:
    """Whether a row needs no more warm-up: it had its time, and its times no longer fall.

    Calls as long as the whole warm-up of a row are made once more in each process, which was warmed
    up when it was prepared; a trend is not looked for.

    Args:
        row_state: the row.
        blocks: the replica and the median of each warm-up block, in the order taken.
    """
    if row_state.call_s >= _WARMUP_S:
        return row_state.error is not None or len(blocks) >= len(row_state.replicas)
    medians = _relative_to_replica(blocks)
    enough = len(medians) >= _WARMUP_BLOCKS * len(row_state.replicas)
    long = sum(row_state.warmup_calls) * row_state.call_s >= _WARMUP_S
    return row_state.error is not None or (
        enough and long and has_settled(medians, _noise(medians))
    )


def _relative_to_replica(blocks: Sequence[tuple[int, float]]) -> list[float]:
    """Block medians divided by their replica's: a difference between processes is not warm-up."""
    replicas = grouped(blocks, lambda block: block[0])
    centres = {replica: median(value for _, value in own) for replica, own in replicas.items()}
    return [value / centres[replica] for replica, value in blocks]


def _noise(medians: Sequence[float]) -> float:
    """Relative spread of neighbouring blocks; a smaller trend is not distinguishable from noise."""
    steps = [abs(b / a - 1) for a, b in itertools.pairwise(medians[-_NOISE_BLOCKS:])]
    return median(steps) if steps else 0.0


def plan_blocks(
    row_states: Sequence[RowState],
    remaining_s: float,
    overhead_s: float,
    min_rounds: int | None = None,
) -> None:
    """Set the size of blocks; smaller than usual where the budget would not hold enough rounds.

    Args:
        row_states: rows that are warm; changed in place.
        remaining_s: seconds for all rounds.
        overhead_s: seconds that a block takes besides its calls.
        min_rounds: the fewest rounds; None depends on the replicas, see `least_rounds`.
    """
    for row_state in row_states:
        sample_s = row_state.mean_call_s * row_state.calls_per_sample
        least = _MIN_LONG_SAMPLES if sample_s >= _LONG_SAMPLE_S else _MIN_SAMPLES
        _set_samples(row_state, max(least, math.ceil(_BLOCK_S / sample_s)))
    replicas = sum(len(row_state.replicas) for row_state in row_states)
    block_s = sum(row_state.block_s for row_state in row_states)
    rounds = least_rounds(row_states) if min_rounds is None else min_rounds
    share = (remaining_s / rounds - overhead_s * replicas) / block_s if block_s else 1.0
    if share < 1:
        for row_state in row_states:
            _set_samples(row_state, max(1, int(row_state.samples * share)))


def _set_samples(row_state: RowState, samples: int) -> None:
    """Set the samples of a block, and its settling calls: one on the host's clock."""
    row_state.samples = samples
    if row_state.replicas[0].opening.clock == "host":
        row_state.settle_calls = 1
        return
    wanted = max(_MIN_SETTLE_CALLS, math.ceil(_SETTLE_S / row_state.call_s))
    allowed = samples * row_state.calls_per_sample * _MAX_SETTLE_SHARE / (1 - _MAX_SETTLE_SHARE)
    row_state.settle_calls = max(1, min(wanted, round(allowed)))
