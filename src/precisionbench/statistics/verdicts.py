"""Verdicts on ratios, with the reasons for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import TypeVar

from precisionbench.statistics.intervals import Interval

# A relative difference below this is too small for most practical purposes.
MARGIN = 0.01
ALPHA = 0.05
K = TypeVar("K", bound=Hashable)


class Verdict(str, Enum):
    """The conclusion that a speed-up's confidence interval supports."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    DIFFERENT_BUT_SMALL = "different_but_small"
    INCONCLUSIVE = "inconclusive"


def verdict_of(interval: Interval, margin: float = MARGIN) -> tuple[Verdict, str]:
    """The first verdict that an interval supports, with its reason.

    Args:
        interval: of a ratio; above 1 is faster.
        margin: the smallest effect that matters in practice, as a share.

    Returns:
        The verdict and a code: `excludes_1`, `within_margin`, `small_effect` or `includes_1`.
    """
    large = interval.value >= 1 + margin or interval.value <= 1 / (1 + margin)
    if interval.excludes_1 and large:
        return (Verdict.FASTER if interval.value > 1 else Verdict.SLOWER), "excludes_1"
    if 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin:
        return Verdict.EQUIVALENT, "within_margin"
    if interval.excludes_1:
        return Verdict.DIFFERENT_BUT_SMALL, "small_effect"
    return Verdict.INCONCLUSIVE, "includes_1"


def verdicts(
    comparisons: Mapping[K, Callable[[float], Interval]],
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> dict[K, tuple[Interval, Verdict, str]]:
    """Verdicts of several comparisons that belong together, such as all rows of a run.

    The intervals are simultaneous (Bonferroni: alpha / K each). The verdicts follow Holm's
    procedure (Scand. J. Statist. 6, 1979): each comparison that is significant at alpha / K leaves
    more alpha for the rest. Where a comparison is significant by Holm's procedure only, the reason
    is `holm`.

    Args:
        comparisons: for each of them, a function from a confidence to its interval.
        alpha: probability of any false difference.
        margin: as for `verdict_of`.
    """
    confidence = 1 - alpha / max(1, len(comparisons))
    shown = {name: at(confidence) for name, at in comparisons.items()}
    tested, found = _holm(comparisons, alpha), {}
    for name, interval in shown.items():
        verdict, reason = verdict_of(tested[name], margin)
        if tested[name].excludes_1 and not interval.excludes_1:
            reason = "holm"
        found[name] = (interval, verdict, reason)
    return found


def _holm(comparisons: Mapping[K, Callable[[float], Interval]], alpha: float) -> dict[K, Interval]:
    """Each comparison's interval at the confidence of its last test by Holm's procedure."""
    tested: dict[K, Interval] = {}
    left = dict(comparisons)
    while left:
        level = {name: at(1 - alpha / len(left)) for name, at in left.items()}
        rejected = [name for name, interval in level.items() if interval.excludes_1]
        tested.update({name: level[name] for name in rejected or level})
        if not rejected:
            break
        left = {name: at for name, at in left.items() if name not in rejected}
    return tested
