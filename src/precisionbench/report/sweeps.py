"""Crossover, and from which batch size on throughput no longer grows, in sentences."""

from __future__ import annotations

from precisionbench.analysis.batch_sweeps import BatchSweep, batch_sweeps
from precisionbench.analysis.crossover import Crossover
from precisionbench.analysis.saturation import GROWTH, Saturation
from precisionbench.report import formatting
from precisionbench.report.rows import speedup_value, verdict_words
from precisionbench.results import ComparisonData, Speedup
from precisionbench.statistics import Interval
from precisionbench.statistics.crossing import Crossing

_GROWTH = f"{100 * GROWTH:.0f} %"


def sweep_sentences(data: ComparisonData) -> list[tuple[str, str]]:
    """The backends that were measured at several batch sizes, as (backend, sentence).

    Args:
        data: the comparison.
    """
    found = batch_sweeps(data)
    crossovers = [(one.backend, text) for one in found if (text := _crossover(one))]
    return [
        *crossovers,
        *((one.backend, _saturation(one)) for one in found),
    ]


def _crossover(sweep: BatchSweep) -> str:
    if sweep.crossover is None:
        return ""
    largest = max(sweep.speedups)
    return crossover_sentence(sweep.crossover, sweep.reference, largest, sweep.speedups[largest])


def _saturation(sweep: BatchSweep) -> str:
    at = sweep.saturation
    return saturation_sentence(at, sweep.throughput[at.batch_size])


def crossover_sentence(found: Crossover, reference: str, largest: int, best: Speedup) -> str:
    """From which batch size on a row is faster than its reference, without the row's name.

    Args:
        found: the crossover of the row.
        reference: the row that it is compared with.
        largest: the largest batch size with a speed-up.
        best: the speed-up at this batch size.
    """
    if found.batch_size is None:
        at = f"faster than {reference} at batch {largest}, the largest measured"
        is_known = found.kind == "never"
        return f"not {at}" if is_known else f"not shown to be {at}: {verdict_words(best)}"
    where = ", the smallest measured" if found.kind == "from_start" else _where(found)
    since = f"faster than {reference} from batch {found.batch_size} on{where}"
    return f"{since}, {speedup_value(best)} at batch {largest}"


def _where(found: Crossover) -> str:
    if found.above is None:
        where = f"crossover at most {found.batch_size}; smaller ones are inconclusive"
    else:
        where = f"crossover between {found.above} and {found.batch_size}"
    at = crossing_text(found.at)
    return f" ({where}{f'; interpolated: {at}' if at else ''})"


def crossing_text(found: Crossing) -> str:
    """Where a speed-up crosses 1, such as `5.2, 95 % CI 4.1 to 6.6`; empty where it does not.

    Args:
        found: in items per call.
    """
    if found.value is None:
        return ""
    low = "below the smallest" if found.low is None else formatting.significant(found.low, 2)
    high = "above the largest" if found.high is None else formatting.significant(found.high, 2)
    return f"{formatting.significant(found.value, 2)}, 95 % CI {low} to {high}"


def saturation_sentence(found: Saturation, throughput: Interval) -> str:
    """Where throughput stops growing.

    Args:
        found: the batch size.
        throughput: at this batch size, in items per second.
    """
    size = found.batch_size
    rate = f"{formatting.number(throughput)} items/s {formatting.half_width(throughput)}"
    if found.grows_to_the_end:
        return f"throughput grows up to batch {size}, the largest measured ({rate}){_doubt(found)}"
    return (
        f"throughput stops growing at batch {size}{_interval(found)} ({rate}): "
        f"no larger batch gives more than {_GROWTH} more"
    )


def _doubt(found: Saturation) -> str:
    if found.low == found.largest:
        return ""
    return f"; above batch {found.low}, growth of more than {_GROWTH} is inconclusive"


def _interval(found: Saturation) -> str:
    return "" if found.low == found.high else f", 95 % CI {found.low} to {found.high}"
