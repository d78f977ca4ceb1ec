"""What may be said of a ratio, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from precisionbench.statistics.intervals import Interval

# Below this a difference is of no practical use to most.
MARGIN = 0.01
ALPHA = 0.05


class Verdict(str, Enum):
    """What a speed-up's interval allows to be said."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    DIFFERENT_BUT_SMALL = "different_but_small"
    INCONCLUSIVE = "inconclusive"


def verdict_of(interval: Interval, margin: float = MARGIN) -> tuple[Verdict, str]:
    """The first verdict that holds, with its reason.

    Args:
        interval: of a ratio; above 1 is faster.
        margin: the smallest effect of practical use, as a share.

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
    comparisons: Mapping[str, Callable[[float], Interval]],
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> dict[str, tuple[Interval, Verdict, str]]:
    """Verdicts of several comparisons with one reference, in the same run.

    The intervals are simultaneous (Bonferroni: alpha / K each). The verdicts are Holm's (Scand. J.
    Statist. 6, 1979): what is told apart at alpha / K leaves more alpha for the rest. Where only
    Holm tells a row apart, the reason is `holm`.

    Args:
        comparisons: for each row, its interval at a confidence.
        alpha: chance of any false difference at all.
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


def _holm(
    comparisons: Mapping[str, Callable[[float], Interval]], alpha: float
) -> dict[str, Interval]:
    """Each comparison's interval at the confidence at which Holm's procedure tests it last."""
    tested: dict[str, Interval] = {}
    left = dict(comparisons)
    while left:
        level = {name: at(1 - alpha / len(left)) for name, at in left.items()}
        rejected = [name for name, interval in level.items() if interval.excludes_1]
        tested.update({name: level[name] for name in rejected or level})
        if not rejected:
            break
        left = {name: at for name, at in left.items() if name not in rejected}
    return tested
