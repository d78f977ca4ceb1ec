"""From which batch size on throughput no longer grows, in sentences."""

from __future__ import annotations

from precisionbench.analysis.batch_sweeps import GROWTH, BatchSweep, batch_sweeps
from precisionbench.report import formatting
from precisionbench.results import ComparisonData


def sweep_sentences(data: ComparisonData) -> list[tuple[str, str]]:
    """The backends that were measured at several batch sizes, as (backend, sentence).

    Args:
        data: the comparison.
    """
    return [(sweep.backend, _sentence(sweep)) for sweep in batch_sweeps(data)]


def _sentence(sweep: BatchSweep) -> str:
    size, found = sweep.batch_size, sweep.throughput[sweep.batch_size]
    rate = f"{formatting.number(found)} items/s {formatting.half_width(found)}"
    if sweep.grows_to_the_end:
        may_stop = f"; it may stop at batch {sweep.low} or later" if sweep.low < size else ""
        return f"throughput still grows at batch {size}, the largest measured ({rate}){may_stop}"
    return (
        f"throughput stops growing at batch {size}{_interval(sweep)} ({rate}): "
        f"no larger batch gives more than {100 * GROWTH:.0f} % more"
    )


def _interval(sweep: BatchSweep) -> str:
    return "" if sweep.low == sweep.high else f", 95 % CI {sweep.low} to {sweep.high}"
