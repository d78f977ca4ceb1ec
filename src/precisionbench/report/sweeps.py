"""From which batch size on throughput no longer grows, in sentences."""

from __future__ import annotations

from precisionbench.analysis.batch_sweeps import batch_sweeps
from precisionbench.analysis.saturation import GROWTH, Saturation
from precisionbench.report import formatting
from precisionbench.results import ComparisonData
from precisionbench.statistics import Interval


def sweep_sentences(data: ComparisonData) -> list[tuple[str, str]]:
    """The backends that were measured at several batch sizes, as (backend, sentence).

    Args:
        data: the comparison.
    """
    return [
        (sweep.backend, sentence(sweep.saturation, sweep.throughput[sweep.saturation.batch_size]))
        for sweep in batch_sweeps(data)
    ]


def sentence(found: Saturation, throughput: Interval) -> str:
    """Where throughput stops growing.

    Args:
        found: the batch size.
        throughput: at this batch size, in items per second.
    """
    size = found.batch_size
    rate = f"{formatting.number(throughput)} items/s {formatting.half_width(throughput)}"
    if found.grows_to_the_end:
        may_stop = f"; it may stop at batch {found.low} or later" if found.low < size else ""
        return f"throughput still grows at batch {size}, the largest measured ({rate}){may_stop}"
    return (
        f"throughput stops growing at batch {size}{_interval(found)} ({rate}): "
        f"no larger batch gives more than {100 * GROWTH:.0f} % more"
    )


def _interval(found: Saturation) -> str:
    return "" if found.low == found.high else f", 95 % CI {found.low} to {found.high}"
