"""The batch size from which on a row is faster than its reference.

It is stated twice: by the verdicts of the measured batch sizes, and as the point where the speed-up
crosses 1, interpolated between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import attrs

from precisionbench.display import Shown
from precisionbench.results import Speedup
from precisionbench.statistics import Interval, Verdict
from precisionbench.statistics.crossing import Crossing, crossing

_Z95 = NormalDist().inv_cdf(0.975)
_NO_GAIN = (Verdict.SLOWER, Verdict.EQUIVALENT, Verdict.DIFFERENT_BUT_SMALL)


@attrs.frozen(repr=False)
class Crossover(Shown):
    """The batch size from which on a row is faster than the reference.

    Attributes:
        kind: `between` two batch sizes; `from_start`, where every batch size is faster; `never`,
            where the largest batch size is clearly not faster; `inconclusive`, where the verdict of
            the largest batch size is.
        batch_size: the smallest batch size from which on every verdict is `faster`; None for
            `never` and `inconclusive`.
        above: the largest smaller batch size that is clearly not faster (slower, or different by
            less than 1 %); the crossover is above it. None where there is none.
        at: where the speed-up crosses 1, interpolated on a logarithmic scale, in items per call.
    """

    kind: str
    batch_size: int | None
    above: int | None
    at: Crossing


def crossover(speedups: Sequence[tuple[int, Speedup]]) -> Crossover:
    """The crossover by the verdicts, from the largest batch size downwards, and interpolated.

    Tests in a fixed order that ends at the first one without the verdict need no correction for
    their number.

    Args:
        speedups: each batch size, ascending, with the speed-up over the reference at it.
    """
    verdicts = [(size, one.verdict) for size, one in speedups]
    first = len(verdicts)
    while first and verdicts[first - 1][1] is Verdict.FASTER:
        first -= 1
    not_faster = [size for size, verdict in verdicts[:first] if verdict in _NO_GAIN]
    above, at = max(not_faster, default=None), _interpolated(speedups)
    if first == len(verdicts):
        kind = "inconclusive" if verdicts[-1][1] is Verdict.INCONCLUSIVE else "never"
        return Crossover(kind, None, above, at)
    return Crossover("between" if first else "from_start", verdicts[first][0], above, at)


def _interpolated(speedups: Sequence[tuple[int, Speedup]]) -> Crossing:
    """Where the speed-up crosses 1, in items per call."""
    found = [one.interval for _, one in speedups]
    at = crossing(
        [math.log(size) for size, _ in speedups],
        [math.log(one.value) for one in found],
        [_error(one) for one in found],
    )
    ends = (at.value, at.low, at.high)
    return Crossing(*(None if end is None else math.exp(end) for end in ends))


def _error(ratio: Interval) -> float:
    """The standard error of the log of a ratio, from its 95 % interval."""
    return math.log(ratio.high / ratio.low) / (2 * _Z95)
