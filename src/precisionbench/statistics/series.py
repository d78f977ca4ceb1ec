"""Properties of a series of values over time: settled, drifting, stepping, carried over."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from enum import Enum
from statistics import mean, median

import attrs

# Warm-up is over when the two halves of the last block medians differ by at most this share (or by
# at most the noise), and the drift over all of them is at most that share.
_SETTLED_BLOCKS = 8
_SETTLED_DIFFERENCE = 0.005
_SETTLED_DRIFT = 0.01
# Barrett et al. (OOPSLA 2017) use PELT with penalty 15 ln n for the same question.
_PENALTY = 15.0
_MIN_SEGMENT = 2
# Longer series are condensed: finding change points takes time that grows with the length's square.
_MOST_VALUES = 400
# Segments whose levels differ by less than this share count as the same state.
_SAME_LEVEL = 0.005
_MIN_AFTER_EACH = 3
# Ashman's D of the best split is 3.5 for a uniform and 2.7 for a normal distribution.
_SEPARATION = 4.0
_MIN_MODE_SHARE = 0.1
_MIN_MODE_GAP = 0.02


class Steadiness(str, Enum):
    """How a row's speed developed over its rounds."""

    FLAT = "flat"
    WARMUP = "warmup"
    SLOWDOWN = "slowdown"
    NO_STEADY_STATE = "no_steady_state"


@attrs.frozen
class Outliers:
    """The number of outliers among samples; outliers are counted and not removed.

    Attributes:
        count: samples outside of median +- 3 (p90 - p10).
        total: number of all samples.
        mean: of all samples, in their unit.
        median: of all samples, in their unit.
    """

    count: int
    total: int
    mean: float
    median: float


@attrs.frozen
class Modes:
    """The two modes of bimodal samples.

    Attributes:
        gap: difference of the two groups' means, as a share of the faster group's.
        slow_share: share of the samples in the slower group.
    """

    gap: float
    slow_share: float


def drift(values: Sequence[float]) -> float:
    """The relative change from the first value to the last, along the Theil-Sen line.

    The slope is the median of the slopes of all pairs (Sen, JASA 63, 1968).

    Args:
        values: evenly spaced in time, positive.
    """
    count = len(values)
    if count < 2:
        return 0.0
    slopes = [(values[j] - values[i]) / (j - i) for i, j in itertools.combinations(range(count), 2)]
    return median(slopes) * (count - 1) / median(values)


def has_settled(medians: Sequence[float], noise: float = 0.0) -> bool:
    """Whether the last block medians show that warm-up is over.

    Args:
        medians: block medians in the order taken.
        noise: relative difference of the halves that noise alone can cause.
    """
    if len(medians) < _SETTLED_BLOCKS:
        return False
    last = medians[-_SETTLED_BLOCKS:]
    half = _SETTLED_BLOCKS // 2
    difference = abs(median(last[:half]) / median(last[half:]) - 1)
    return difference <= max(_SETTLED_DIFFERENCE, noise) and abs(drift(last)) <= _SETTLED_DRIFT


def steadiness(values: Sequence[float]) -> Steadiness:
    """Classify how a row's speed developed over its rounds; no round is removed for it.

    Args:
        values: one per round, in seconds.

    Returns:
        `flat`; `warmup` if it became faster and stayed so; `slowdown` if it became slower and
        stayed so; `no_steady_state` if it changed in both directions.
    """
    values = _condensed(values)
    parts = change_points(values)
    means = [mean(values[a:b]) for a, b in itertools.pairwise(parts)]
    steps = [b / a - 1 for a, b in itertools.pairwise(means) if abs(b / a - 1) > _SAME_LEVEL]
    if not steps:
        return Steadiness.FLAT
    if all(step < 0 for step in steps):
        return Steadiness.WARMUP
    return Steadiness.SLOWDOWN if all(step > 0 for step in steps) else Steadiness.NO_STEADY_STATE


def _condensed(values: Sequence[float]) -> Sequence[float]:
    """The medians of neighbours, of as many at a time as leave 400 values or fewer."""
    size = math.ceil(len(values) / _MOST_VALUES)
    if size <= 1:
        return values
    return [median(values[start : start + size]) for start in range(0, len(values), size)]


def change_points(values: Sequence[float]) -> list[int]:
    """The positions at which the level changes: bounds of the segments, with 0 and the length.

    Optimal partitioning with a normal mean-shift cost on values scaled by their robust noise, and
    a penalty of 15 ln n per change. PELT (Killick et al., JASA 107, 2012) computes the same faster.

    Args:
        values: in the order taken.
    """
    count = len(values)
    if count < 2 * _MIN_SEGMENT:
        return [0, count]
    scaled = _scaled(values)
    sums = [0.0, *itertools.accumulate(scaled)]
    squares = [0.0, *itertools.accumulate(x * x for x in scaled)]
    penalty = _PENALTY * math.log(count)
    best, came_from = [-penalty] + [math.inf] * count, [0] * (count + 1)
    for end in range(_MIN_SEGMENT, count + 1):
        for start in [0, *range(_MIN_SEGMENT, end - _MIN_SEGMENT + 1)]:
            total, length = sums[end] - sums[start], end - start
            cost = squares[end] - squares[start] - total * total / length
            if best[start] + cost + penalty < best[end]:
                best[end], came_from[end] = best[start] + cost + penalty, start
    return _bounds(came_from, count)


def _bounds(came_from: list[int], count: int) -> list[int]:
    bounds = [count]
    while bounds[0]:
        bounds.insert(0, came_from[bounds[0]])
    return bounds


def _scaled(values: Sequence[float]) -> list[float]:
    """Values relative to their median, in units of their noise."""
    steps = [abs(b - a) for a, b in itertools.pairwise(values)]
    centre = median(values)
    noise = noise_of_steps(steps) or centre * 1e-4
    return [(value - centre) / noise for value in values]


def noise_of_steps(steps: Sequence[float]) -> float:
    """The standard deviation of single values, from the sizes of steps between neighbours.

    The difference of two normal values has a median size of 0.6745 sqrt(2) standard deviations.

    Args:
        steps: absolute differences of neighbouring values; at least one.
    """
    return median(steps) / (0.6745 * math.sqrt(2))


def carryover(values: Sequence[float], predecessors: Sequence[Hashable], alpha: float) -> bool:
    """Whether a row's blocks depend on the row that ran just before them.

    By the Kruskal-Wallis test over predecessors.

    Args:
        values: one per block, with the round effects subtracted.
        predecessors: the row that ran before each block.
        alpha: probability of a false positive.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, before in zip(values, predecessors, strict=True):
        groups.setdefault(before, []).append(value)
    kept = [group for group in groups.values() if len(group) >= _MIN_AFTER_EACH]
    if len(kept) < 2 or len({x for group in kept for x in group}) < 2:
        return False
    return _kruskal_wallis_p(kept) < alpha


def _kruskal_wallis_p(groups: list[list[float]]) -> float:
    """The p-value from the chi-squared limit, without a correction for ties (continuous times)."""
    from scipy.special import chdtrc

    order = sorted((value, i) for i, group in enumerate(groups) for value in group)
    ranks = [0.0] * len(groups)
    for rank, (_, i) in enumerate(order, start=1):
        ranks[i] += rank
    n = len(order)
    within = sum(total**2 / len(group) for total, group in zip(ranks, groups, strict=True))
    return float(chdtrc(len(groups) - 1, 12 / (n * (n + 1)) * within - 3 * (n + 1)))


def outliers(samples: Sequence[float]) -> Outliers:
    """Count the samples outside of median +- 3 (p90 - p10).

    Args:
        samples: all of a row, in any unit.
    """
    import numpy as np

    array = np.asarray(samples, dtype=float)
    low, middle, high = (float(x) for x in np.quantile(array, (0.1, 0.5, 0.9)))
    far = int((np.abs(array - middle) > 3 * (high - low)).sum()) if high > low else 0
    return Outliers(far, len(array), float(array.mean()), middle)


def bimodality(samples: Sequence[float]) -> Modes | None:
    """The two modes of bimodal samples; None if the samples are not clearly bimodal.

    The split minimises the variance within groups (Otsu, IEEE Trans. SMC 9, 1979). The samples are
    bimodal if the groups' means are far apart for their spread (Ashman, Bird & Zepf, Astron. J.
    108, 1994), each group is large enough, and the gap is of practical size.

    Args:
        samples: all of a row, positive.
    """
    import numpy as np

    x = np.sort(np.asarray(samples, dtype=float))
    count, least = len(x), math.ceil(_MIN_MODE_SHARE * len(x))
    if count < 2 * max(2, least):
        return None
    cuts = np.arange(max(2, least), count - max(2, least) + 1)
    sums = np.cumsum(x)
    low, high = sums[cuts - 1] / cuts, (sums[-1] - sums[cuts - 1]) / (count - cuts)
    best = int(np.argmax(cuts * (count - cuts) * (high - low) ** 2))
    cut, gap = int(cuts[best]), float(high[best] - low[best])
    spread = math.sqrt((x[:cut].var() + x[cut:].var()) / 2)
    if gap <= _SEPARATION * spread or gap < _MIN_MODE_GAP * low[best]:
        return None
    return Modes(gap / float(low[best]), (count - cut) / count)
