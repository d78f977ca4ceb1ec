"""Changes of the level in a short series of values whose noise is roughly known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache

import attrs

from precisionbench.statistics.intervals import Interval
from precisionbench.statistics.verdicts import ALPHA

# Fewer values do not show how much they vary.
MIN_VALUES = 4
# A level between two changes has at least this many values; a single one is an outlier.
_MIN_BETWEEN = 2
_Cuts = tuple[int, ...]


@attrs.frozen
class LevelChange:
    """A change of the level.

    Attributes:
        position: of the first value after the change.
        difference: the level after minus the level before, with its simultaneous interval.
    """

    position: int
    difference: Interval

    @property
    def includes_0(self) -> bool:
        """Whether the interval of the difference includes 0."""
        return self.difference.low <= 0 <= self.difference.high


def level_changes(
    values: Sequence[float], variances: Sequence[float], alpha: float = ALPHA
) -> tuple[LevelChange, ...]:
    """Where the level of a series changes.

    One change, or two with another level between them, is added as long as the differences of the
    neighbouring levels are significant. Each difference is tested by Student's t. Its variance is
    the larger one of the known variance and the variance within the levels, so that neither values
    that vary more than was known, nor values that agree by chance, are reported as changes. The
    levels of the tests are divided by the number of possible positions (Bonferroni), so that a
    series without a change has one reported with a probability of at most alpha.

    Args:
        values: in the order of time, independent of each other.
        variances: known variance of each value.
        alpha: probability of a false alarm in the whole series.

    Returns:
        The changes in order; none for fewer than 4 values.
    """
    series = _Series(values, variances)
    cuts: _Cuts = ()
    if len(values) >= MIN_VALUES:
        while (found := series.next_cuts(cuts, alpha)) is not None:
            cuts = found
    return series.changes(cuts, alpha)


class _Series:
    """Values with their sums up to each position."""

    def __init__(self, values: Sequence[float], variances: Sequence[float]) -> None:
        centre = sum(values) / max(1, len(values))
        self.count = len(values)
        self._sums = [0.0, *itertools.accumulate(x - centre for x in values)]
        self._squares = [0.0, *itertools.accumulate((x - centre) ** 2 for x in values)]
        self._known = [0.0, *itertools.accumulate(variances)]

    def next_cuts(self, cuts: _Cuts, alpha: float) -> _Cuts | None:
        """The positions with one or two more of them; None if no others are significant."""
        for added in (list(self._single(cuts)), list(self._double(cuts))):
            scored = [(self._score(cuts, new, alpha), new) for new in added]
            score, new = max(scored, default=(0.0, ()))
            if score > 1:
                return tuple(sorted((*cuts, *new)))
        return None

    def _single(self, cuts: _Cuts) -> Iterator[_Cuts]:
        yield from ((k,) for start, end in self._segments(cuts) for k in range(start + 1, end))

    def _double(self, cuts: _Cuts) -> Iterator[_Cuts]:
        for start, end in self._segments(cuts):
            for first in range(start + 1, end - _MIN_BETWEEN):
                yield from ((first, second) for second in range(first + _MIN_BETWEEN, end))

    def _segments(self, cuts: _Cuts) -> list[tuple[int, int]]:
        return list(itertools.pairwise((0, *cuts, self.count)))

    def _score(self, cuts: _Cuts, new: _Cuts, alpha: float) -> float:
        """The least significant of the new differences, as a multiple of what is significant."""
        every = tuple(sorted((*cuts, *new)))
        degrees = self.count - len(every) - 1
        if degrees < 1:
            return 0.0
        within, limit = self._within(every), self._limit(degrees, len(new), alpha)
        return min(_size(*self._difference(every, place, within)) / limit for place in new)

    def _limit(self, degrees: int, added: int, alpha: float) -> float:
        """What t must exceed: half of alpha is for one change, and half for two."""
        return _t(degrees, alpha / 2 / math.comb(self.count - 1, added))

    def _within(self, cuts: _Cuts) -> float:
        """The variance of the values within their levels."""
        segments = self._segments(cuts)
        squares = sum(
            self._squares[end] - self._squares[start] - self._sum(start, end) ** 2 / (end - start)
            for start, end in segments
        )
        return max(0.0, squares) / (self.count - len(segments))

    def _sum(self, start: int, end: int) -> float:
        return self._sums[end] - self._sums[start]

    def _difference(self, cuts: _Cuts, place: int, within: float) -> tuple[float, float]:
        """The difference of the levels around a position, and the root of its variance."""
        segments = self._segments(cuts)
        around = [(start, end) for start, end in segments if place in (start, end)]
        before, after = (self._sum(start, end) / (end - start) for start, end in around)
        known = sum(
            (self._known[end] - self._known[start]) / (end - start) ** 2 for start, end in around
        )
        shares = sum(1 / (end - start) for start, end in around)
        return after - before, math.sqrt(max(known, within * shares))

    def changes(self, cuts: _Cuts, alpha: float) -> tuple[LevelChange, ...]:
        """The changes whose intervals exclude 0, which an added change can alter."""
        found = [self._change(cuts, place, alpha) for place in cuts]
        kept = tuple(one.position for one in found if not one.includes_0)
        return tuple(found) if kept == cuts else self.changes(kept, alpha)

    def _change(self, cuts: _Cuts, place: int, alpha: float) -> LevelChange:
        """The change at a position, with its interval."""
        within = self._within(cuts)
        difference, error = self._difference(cuts, place, within)
        reach = error * self._limit(self.count - len(cuts) - 1, 1, alpha)
        return LevelChange(place, Interval(difference, difference - reach, difference + reach))


def _size(difference: float, error: float) -> float:
    if error:
        return abs(difference) / error
    return math.inf if difference else 0.0


@cache
def _t(degrees: int, alpha: float) -> float:
    """The quantile of Student's t that is exceeded in size with probability alpha."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - alpha / 2))
