"""Statistics on plain numbers: no torch, no devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import attrs


@attrs.frozen
class Interval:
    """A value with the interval around it, all three in the same unit.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width as a share of the value."""
        return (self.high - self.low) / (2 * abs(self.value)) if self.value else math.inf

    def inverse_of(self, numerator: float) -> Interval:
        """The interval of `numerator / x` for a positive x in this interval."""
        return Interval(numerator / self.value, numerator / self.high, numerator / self.low)


def median_interval(blocks: Sequence[Sequence[float]], confidence: float = 0.95) -> Interval:
    """The median of the block medians with a distribution-free interval.

    Calls within a block are correlated, so blocks, not calls, are what is counted: the interval's
    ends are order statistics of the block medians (the sign-test interval; Hahn & Meeker,
    Statistical Intervals, section 5.2). It speaks of this session alone.

    Args:
        blocks: samples of each block, in any one unit.
        confidence: probability that the interval holds the median, for independent blocks.

    Returns:
        The median and its interval. With too few blocks for that confidence (fewer than 6 at
        0.95) the interval is the range of the block medians.

    Raises:
        ValueError: there is no block, or a block without samples.
    """
    medians = sorted(median(block) for block in blocks)
    rank = _lower_rank(len(medians), confidence)
    return Interval(median(medians), medians[rank], medians[-1 - rank])


def _lower_rank(count: int, confidence: float) -> int:
    """Largest 0-based rank whose interval [x(rank), x(count-1-rank)] keeps the confidence."""
    if count < 1:
        raise ValueError("an interval needs at least one block")
    tail = (1 - confidence) / 2
    cumulative, rank = 0.0, 0
    for k in range(count // 2):
        cumulative += math.comb(count, k) / 2**count
        if cumulative > tail:
            break
        rank = k
    return rank


def unpaired_ratio_interval(base: Interval, other: Interval) -> Interval:
    """The ratio base / other with the widest interval that the two intervals allow.

    It assumes nothing about how the two were measured, so it is wide; it is no verdict.
    """
    return Interval(base.value / other.value, base.low / other.high, base.high / other.low)
