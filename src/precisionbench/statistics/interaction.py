"""Rows whose ratio changes between rounds, because something delays all processes of one of them.

In the terms of the analysis of variance: row and round interact. Load of the host delays rows that
launches limit, and not CUDA graphs (docs/between-processes.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from precisionbench.statistics.levels import complete_tables

_ALPHA = 0.01  # probability that rows seem to interact with rounds, and do not


@attrs.frozen
class _Variance:
    """A variance, with its degrees of freedom; 0 of both where it cannot be estimated."""

    value: float
    degrees: int

    @classmethod
    def of(cls, squares: Iterable[float], degrees: int) -> _Variance:
        return cls(sum(squares) / degrees if degrees else 0.0, degrees)


def changing_ratios(sessions: Sequence[Sequence[Mapping[Any, float]]]) -> list[float]:
    """The log ratio of two rows in each round, where it changes more than their processes vary.

    Rounds are taken as independent of each other: where processes drift for themselves, it can seem
    to change, which makes an interval wider.

    Args:
        sessions: for each, the log values of the one row and of the other, by (replica, round).

    Returns:
        The differences of the medians over replicas; none where each process varies for itself. A
        row with one process in each session does not show which of the two it is, and counts as
        one whose ratio changes.
    """
    import numpy as np

    tables = [complete_tables(pair) for pair in sessions]
    chance = _chance(tables)
    if chance is not None and chance >= _ALPHA:
        return []
    medians = [[np.median(table, axis=0) for table in pair] for pair in tables]
    return [float(ratio) for base, other in medians for ratio in base - other]


def interact(sessions: Sequence[Sequence[Mapping[Any, float]]]) -> bool:
    """Whether the ratio of two rows changes more than their processes vary, as far as they show it.

    Args:
        sessions: as for `changing_ratios`.
    """
    chance = _chance([complete_tables(pair) for pair in sessions])
    return chance is not None and chance < _ALPHA


def _chance(tables: Sequence[Sequence[Any]]) -> float | None:
    """The probability of such a change where there is none; None with one process in each session.

    An F test compares the variance over rounds of the difference of the rows' means with what it
    would be if each process varied for itself. The latter is a sum of two variances, so its degrees
    of freedom are those of Satterthwaite (Biometrics Bulletin 2, 1946).
    """
    from scipy.special import fdtrc

    seen = _of_differences(tables)
    noises = [_of_mean([pair[row] for pair in tables]) for row in (0, 1)]
    expected = sum(noise.value for noise in noises)
    if not seen.value:
        return 1.0
    if not all(noise.degrees for noise in noises):
        return None
    if not expected:
        return 0.0
    degrees = expected**2 / sum(noise.value**2 / noise.degrees for noise in noises)
    return float(fdtrc(seen.degrees, degrees, seen.value / expected))


def _of_differences(tables: Sequence[Sequence[Any]]) -> _Variance:
    """The variance over rounds of the difference of two rows' means."""
    differences = [base.mean(axis=0) - other.mean(axis=0) for base, other in tables]
    squares = (float(((d - d.mean()) ** 2).sum()) for d in differences)
    return _Variance.of(squares, sum(len(d) - 1 for d in differences))


def _of_mean(tables: Sequence[Any]) -> _Variance:
    """The variance of a row's mean in a round, if each of its processes varies for itself."""
    shapes = [table.shape for table in tables]
    own = _Variance.of(map(_residual_squares, tables), sum((n - 1) * (r - 1) for n, r in shapes))
    rounds = sum(r - 1 for _, r in shapes)
    share = sum((r - 1) / n for n, r in shapes) / rounds if rounds else 0.0
    return _Variance(own.value * share, own.degrees)


def _residual_squares(table: Any) -> float:
    """The squares of what neither the levels of processes nor the means of rounds explain."""
    levels, means = table.mean(axis=1, keepdims=True), table.mean(axis=0)
    return float(((table - levels - means + table.mean()) ** 2).sum())
