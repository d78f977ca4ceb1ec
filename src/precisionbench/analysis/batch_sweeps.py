"""From which batch size on throughput no longer grows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.display import Shown
from precisionbench.results.comparison_data import BackendResult, ComparisonData
from precisionbench.spec_syntax import without_batch
from precisionbench.statistics import Interval

# Throughput that a larger batch exceeds by no more than this no longer grows.
GROWTH = 0.05
_ALPHA = 0.05  # probability that any interval of a comparison's sweeps does not hold its ratio


@attrs.frozen(repr=False)
class BatchSweep(Shown):
    """A backend at several batch sizes.

    Attributes:
        backend: its spec without the batch size, behind the name of its model where there are
            several.
        rows: names of the rows by batch size, ascending.
        throughput: items per second by batch size.
        batch_size: the smallest at which throughput stops growing: no larger one has a throughput
            that is more than 5 % higher.
        low: the smallest at which throughput may stop growing: no larger one is shown to be more
            than 5 % higher.
        high: the smallest at which throughput is shown to stop growing: every larger one is shown
            to be at most 5 % higher. The largest one measured always is.
    """

    backend: str
    rows: Mapping[int, str]
    throughput: Mapping[int, Interval]
    batch_size: int
    low: int
    high: int

    @property
    def largest(self) -> int:
        """The largest batch size that was measured."""
        return max(self.rows)

    @property
    def grows_to_the_end(self) -> bool:
        """Whether throughput still grew at the largest batch size."""
        return self.batch_size == self.largest


def batch_sweeps(data: ComparisonData) -> tuple[BatchSweep, ...]:
    """Each backend that was measured at several batch sizes.

    The intervals of all ratios of throughputs are simultaneous.

    Args:
        data: the comparison.

    Returns:
        One sweep for each backend, in the order of the rows.
    """
    series = _series(data.results)
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in series.values())
    confidence = 1 - _ALPHA / max(1, pairs)
    return tuple(_sweep(data, name, rows, confidence) for name, rows in series.items())


def _series(results: Sequence[BackendResult]) -> dict[str, dict[int, BackendResult]]:
    """Rows that differ in their batch size only, by size; those of several sizes."""
    found: dict[str, dict[int, BackendResult]] = {}
    for row in results:
        if row.batch_size:
            found.setdefault(without_batch(row.backend), {}).setdefault(row.batch_size, row)
    return {name: dict(sorted(rows.items())) for name, rows in found.items() if len(rows) > 1}


def _sweep(
    data: ComparisonData, name: str, rows: Mapping[int, BackendResult], confidence: float
) -> BatchSweep:
    ratios = {
        (small, large): per_item_ratio(data, rows[small].backend, rows[large].backend, confidence)
        for small, large in itertools.combinations(rows, 2)
    }

    def first(growth: Callable[[Interval], float]) -> int:
        """The first size of which no larger one grows by more than 5 %."""
        return next(
            size
            for size in rows
            if all(growth(r) <= 1 + GROWTH for (small, _), r in ratios.items() if small == size)
        )

    return BatchSweep(
        name,
        {size: row.backend for size, row in rows.items()},
        {size: row.throughput for size, row in rows.items() if row.throughput},
        batch_size=first(lambda ratio: ratio.value),
        low=first(lambda ratio: ratio.low),
        high=first(lambda ratio: ratio.high),
    )
