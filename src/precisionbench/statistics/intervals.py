"""One quantity and the interval around it."""

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

    @property
    def excludes_1(self) -> bool:
        """Whether 1 lies outside."""
        return not self.low <= 1 <= self.high

    def exp(self) -> Interval:
        """The interval of what this one holds the logarithm of."""
        return Interval(math.exp(self.value), math.exp(self.low), math.exp(self.high))

    def inverse_of(self, numerator: float) -> Interval:
        """The interval of `numerator / x` for a positive x in this interval.

        Args:
            numerator: positive, in any unit.

        Returns:
            The interval in that unit over this one's.
        """
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


# Rounds are never taken to be more alike than this: R_eff would vanish.
_MAX_AUTOCORRELATION = 0.9


def quantile_interval(
    rounds: Sequence[Sequence[float]],
    q: float = 0.5,
    confidence: float = 0.95,
    resolution: float = 0.0,
) -> Interval:
    """A quantile of all samples with an interval that counts rounds, not samples.

    The cluster version of Woodruff's interval (Woodruff, JASA 47, 1952): how the share of samples
    below the quantile varies from round to round says how far the quantile itself may move; rounds
    that follow one another alike count for fewer.

    Args:
        rounds: the samples of each round, in any one unit.
        q: which quantile, between 0 and 1.
        confidence: probability that the interval holds it.
        resolution: what one step of the clock is worth in a sample; the interval is at least
            that wide.

    Returns:
        The pooled quantile and its interval, which speaks of this session alone. A single round
        tells nothing of how rounds vary, so its interval is its range.

    Raises:
        ValueError: there is no round, or a round without samples.
    """
    import numpy as np
    from scipy.special import stdtrit

    if not rounds or not all(map(len, rounds)):
        raise ValueError("an interval needs at least one round, and samples in each")
    pooled = np.concatenate([np.asarray(samples, dtype=float) for samples in rounds])
    value = float(np.quantile(pooled, q))
    if len(rounds) == 1:
        low, high = float(pooled.min()), float(pooled.max())
    else:
        shares = np.array([_share_below(np.asarray(samples), value) for samples in rounds])
        effective = _effective_rounds(shares)
        t = float(stdtrit(max(1.0, effective - 1), (1 + confidence) / 2))
        reach = t * float(shares.std(ddof=1)) / math.sqrt(effective)
        low, high = (float(x) for x in np.quantile(pooled, _clipped(q - reach, q + reach)))
    floor = resolution / 2
    return Interval(value, min(low, value - floor), max(high, value + floor))


def _clipped(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low), min(1.0, high)


def _share_below(samples: object, value: float) -> float:
    """The share of samples below a value, ties counted half."""
    import numpy as np

    array = np.asarray(samples)
    return float((array < value).mean() + 0.5 * (array == value).mean())


def _effective_rounds(shares: object) -> float:
    """R (1 - rho) / (1 + rho), with lag-1 autocorrelation corrected for its bias in short series.

    The correction is (1 + 4 rho) / R (Marriott & Pope, Biometrika 41, 1954).
    """
    import numpy as np

    values = np.asarray(shares)
    count, centred = len(values), values - values.mean()
    total = float((centred**2).sum())
    rho = float((centred[1:] * centred[:-1]).sum()) / total if total else 0.0
    rho = min(max(rho + (1 + 4 * max(rho, 0.0)) / count, 0.0), _MAX_AUTOCORRELATION)
    return max(2.0, count * (1 - rho) / (1 + rho))


def tail_is_supported(count: int, p: float) -> bool:
    """Whether so many samples say anything of a percentile.

    With fewer than ln 0.05 / ln p samples, the largest of them is below the percentile in more
    than one case of twenty.

    Args:
        count: number of samples.
        p: the percentile as a share, e.g. 0.99.
    """
    return count >= math.log(0.05) / math.log(p)
