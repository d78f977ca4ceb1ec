"""A value with its confidence interval, and the interval of a quantile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.display import Shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_LOG = math.log(1e100)


@attrs.frozen(repr=False)
class Interval(Shown):
    """A value with its confidence interval, all three in the same unit.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width as a share of the value."""
        return (self.high - self.low) / (2 * abs(self.value)) if self.value else math.inf

    @property
    def excludes_1(self) -> bool:
        """Whether 1 is outside the interval."""
        return not self.low <= 1 <= self.high

    def exp(self) -> Interval:
        """The interval of `e ** x` for x in this interval, with no end beyond 1e-100 and 1e100.

        A few rounds with very different values can have ends that no float can represent.
        """
        value, low, high = (
            math.exp(max(-_MAX_LOG, min(_MAX_LOG, x))) for x in (self.value, self.low, self.high)
        )
        return Interval(value, low, high)

    def scaled(self, factor: float) -> Interval:
        """The interval of `x * factor` for x in this interval.

        Args:
            factor: positive.

        Returns:
            The scaled value and ends.
        """
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def inverse_of(self, numerator: float) -> Interval:
        """The interval of `numerator / x` for a positive x in this interval.

        Args:
            numerator: positive, in any unit.

        Returns:
            The interval in that unit over this one's.
        """
        return Interval(numerator / self.value, numerator / self.high, numerator / self.low)


# Upper limit of the autocorrelation of rounds; at 1 the effective number of rounds would be 0.
_MAX_AUTOCORRELATION = 0.9


def quantile_interval(
    rounds: Sequence[Sequence[float]],
    q: float = 0.5,
    confidence: float = 0.95,
    resolution: float = 0.0,
) -> Interval:
    """A quantile of all samples with a confidence interval that counts rounds, not samples.

    The cluster version of Woodruff's interval (Woodruff, JASA 47, 1952): how the share of samples
    below the quantile varies from round to round gives the standard error of that share, and the
    quantiles at both ends of the share's interval are the ends of the quantile's interval.
    Autocorrelated rounds count for fewer.

    Args:
        rounds: the samples of each round, in any one unit.
        q: the quantile as a share, between 0 and 1.
        confidence: probability that the interval holds it.
        resolution: smallest step of the clock per sample; the interval is at least that wide.

    Returns:
        The pooled quantile and its interval, which covers this run only. The interval of a
        single round is its range, because nothing is known of the variation between rounds.

    Raises:
        ValueError: there is no round, or a round without samples.
    """
    import numpy as np

    if not rounds or not all(map(len, rounds)):
        raise ValueError("an interval needs at least one round, and samples in each")
    pooled = np.sort(np.concatenate([np.asarray(samples, dtype=float) for samples in rounds]))
    value = float(np.quantile(pooled, q))
    ends = _ends(rounds, value, q, confidence)
    low, high = (float(x) for x in np.quantile(pooled, ends))
    # Between two samples nothing is known, so the interval contains the neighbours of the value.
    place = q * (len(pooled) - 1)
    below, above = float(pooled[math.floor(place)]), float(pooled[math.ceil(place)])
    half_step = resolution / 2
    return Interval(value, min(low, below, value - half_step), max(high, above, value + half_step))


def _ends(
    rounds: Sequence[Sequence[float]], value: float, q: float, confidence: float
) -> tuple[float, float]:
    """The quantiles at which the interval of a quantile ends, as shares.

    Args:
        rounds: the samples of each round.
        value: the pooled quantile.
        q: its share.
        confidence: of the interval.
    """
    if len(rounds) == 1:
        return 0.0, 1.0
    from scipy.special import stdtrit

    shares = _shares_below(rounds, value)
    effective = _effective_rounds(shares)
    t = float(stdtrit(max(1.0, effective - 1), (1 + confidence) / 2))
    reach = t * float(shares.std(ddof=1)) / math.sqrt(effective)
    return max(0.0, q - reach), min(1.0, q + reach)


def _shares_below(rounds: Sequence[Sequence[float]], value: float) -> NDArray[np.float64]:
    """The share of samples below a value in each round; equal ones count half."""
    import numpy as np

    counts = [len(samples) for samples in rounds]
    pooled = np.concatenate([np.asarray(samples, dtype=float) for samples in rounds])
    below = (pooled < value) + 0.5 * (pooled == value)
    shares: NDArray[np.float64] = np.add.reduceat(below, np.cumsum([0, *counts[:-1]])) / counts
    return shares


def _effective_rounds(shares: NDArray[np.float64]) -> float:
    """The number of independent rounds with the same information, R (1 - rho) / (1 + rho).

    rho is the lag-1 autocorrelation; its bias in short series is corrected by (1 + 4 rho) / R
    (Marriott & Pope, Biometrika 41, 1954).
    """
    count, centred = len(shares), shares - shares.mean()
    total = float((centred**2).sum())
    rho = float((centred[1:] * centred[:-1]).sum()) / total if total else 0.0
    rho = min(max(rho + (1 + 4 * max(rho, 0.0)) / count, 0.0), _MAX_AUTOCORRELATION)
    return max(2.0, count * (1 - rho) / (1 + rho))


def tail_is_supported(count: int, p: float) -> bool:
    """Whether there are enough samples to estimate a high percentile.

    With fewer than ln 0.05 / ln p samples, the largest of them is below the percentile in more
    than 1 of 20 cases.

    Args:
        count: number of samples.
        p: the percentile as a share, e.g. 0.99.
    """
    return count >= math.log(0.05) / math.log(p)
