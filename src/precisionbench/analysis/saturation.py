"""The batch size from which on throughput no longer grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from precisionbench.display import Shown
from precisionbench.statistics import Interval

# Throughput that a larger batch exceeds by no more than this no longer grows.
GROWTH = 0.05


@attrs.frozen(repr=False)
class Saturation(Shown):
    """The batch size at which throughput stops growing.

    Attributes:
        batch_size: the smallest one at which it does: no larger one has a throughput that is more
            than 5 % higher.
        low: the smallest at which it may: no larger one is shown to be more than 5 % higher.
        high: the smallest at which it is shown to: every larger one is shown to be at most 5 %
            higher. The largest one measured always is.
        largest: the largest batch size that was measured.
    """

    batch_size: int
    low: int
    high: int
    largest: int

    @property
    def grows_to_the_end(self) -> bool:
        """Whether throughput still grew at the largest batch size."""
        return self.batch_size == self.largest


def saturation(sizes: Sequence[int], ratio: Callable[[int, int], Interval]) -> Saturation:
    """The batch size at which throughput stops growing.

    Args:
        sizes: batch sizes, ascending.
        ratio: gives the throughput of a larger batch size over that of a smaller one, from both
            (the smaller one first).
    """
    ratios = {
        small: [ratio(small, large) for large in sizes[place + 1 :]]
        for place, small in enumerate(sizes)
    }

    def first(growth: Callable[[Interval], float]) -> int:
        """The first size of which no larger one grows by more than 5 %."""
        return next(
            size for size, found in ratios.items() if all(growth(r) <= 1 + GROWTH for r in found)
        )

    return Saturation(
        batch_size=first(lambda found: found.value),
        low=first(lambda found: found.low),
        high=first(lambda found: found.high),
        largest=sizes[-1],
    )
