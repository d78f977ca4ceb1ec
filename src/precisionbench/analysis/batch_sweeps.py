"""Backends at several batch sizes in one comparison: crossover and saturation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from precisionbench.analysis.crossover import Crossover, crossover
from precisionbench.analysis.saturation import Saturation, saturation
from precisionbench.analysis.speedups import per_item_ratio, speedups
from precisionbench.display import Shown
from precisionbench.results.comparison_data import BackendResult, ComparisonData, Speedup
from precisionbench.spec_syntax import without_batch
from precisionbench.statistics import Interval

_ALPHA = 0.05  # probability that any interval of a comparison's sweeps does not hold its ratio


@attrs.frozen(repr=False)
class BatchSweep(Shown):
    """A backend at several batch sizes.

    Attributes:
        backend: its spec without the batch size, behind the name of its model where there are
            several.
        rows: names of the rows by batch size, ascending.
        throughput: items per second by batch size.
        saturation: the batch size at which throughput stops growing.
        reference: the backend that it is compared with at each batch size; empty for a reference,
            and where the reference has another batch size.
        speedups: over the reference at the same batch size, by batch size.
        crossover: from which batch size on it is faster than the reference; None for fewer than two
            speed-ups.
    """

    backend: str
    rows: Mapping[int, str]
    throughput: Mapping[int, Interval]
    saturation: Saturation
    reference: str = ""
    speedups: Mapping[int, Speedup] = attrs.field(factory=dict)
    crossover: Crossover | None = None


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
    def ratio(small: int, large: int) -> Interval:
        return per_item_ratio(data, rows[small].backend, rows[large].backend, confidence)

    names = {size: row.backend for size, row in rows.items()}
    reference = _reference(data, names)
    found = speedups(data) if reference else {}
    over = {size: found[name] for size, name in names.items() if name in found}
    return BatchSweep(
        name,
        names,
        {size: row.throughput for size, row in rows.items() if row.throughput},
        saturation(list(rows), ratio),
        reference,
        over,
        crossover(list(over.items())) if len(over) > 1 else None,
    )


def _reference(data: ComparisonData, names: Mapping[int, str]) -> str:
    """The backend that each row is compared with at its own batch size; empty if there is none."""
    sizes = {row.backend: row.batch_size for row in data.results}
    bases = {size: data.reference_of(name) for size, name in names.items()}
    found = {without_batch(base) for base in bases.values()}
    is_own = any(base == names[size] for size, base in bases.items())
    if is_own or len(found) > 1 or any(sizes.get(b, n) != n for n, b in bases.items()):
        return ""
    return found.pop()
