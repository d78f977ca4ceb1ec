"""MLPerf LoadGen's early-stopping estimate: an upper bound on a percentile of few samples."""

from __future__ import annotations

from collections.abc import Sequence

LOADGEN_CONFIDENCE = 0.99


def early_stopping_minimum(p: float, confidence: float = LOADGEN_CONFIDENCE) -> int:
    """The smallest number of samples from which LoadGen estimates a percentile.

    Args:
        p: the percentile as a share, e.g. 0.9.
        confidence: LoadGen's is 0.99.

    Returns:
        64 for the 90th percentile and 662 for the 99th, at LoadGen's confidence.
    """
    count = 2
    while not _is_bounded(count, 1, p, confidence):
        count += 1
    return count


def early_stopping_estimate(
    samples: Sequence[float], p: float, confidence: float = LOADGEN_CONFIDENCE
) -> float | None:
    """An upper confidence bound on a percentile.

    It is the t-th largest of n samples, with the largest t for which t or fewer of n samples above
    the percentile are less likely than 1 - confidence: binomial(t; n, 1 - p) < 1 - confidence
    (mlcommons/inference, loadgen/early_stopping.cc and results.cc, tolerance 0).

    Args:
        samples: one value per query, in any one unit.
        p: the percentile as a share, e.g. 0.9.
        confidence: LoadGen's is 0.99.

    Returns:
        The estimate, or None where there are too few samples for any.
    """
    count = len(samples)
    if not _is_bounded(count, 1, p, confidence):
        return None
    above = 1
    while _is_bounded(count, above + 1, p, confidence):
        above += 1
    return sorted(samples)[count - above]


def _is_bounded(count: int, above: int, p: float, confidence: float) -> bool:
    """Whether this number of samples above the percentile is less likely than 1 - confidence."""
    from scipy.special import bdtr

    return count > above and bool(bdtr(above, count, 1 - p) < 1 - confidence)
