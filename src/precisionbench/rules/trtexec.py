"""The figures that NVIDIA's trtexec would print for the same calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, median

from precisionbench.results import BackendResult
from precisionbench.rules.statement import (
    Source,
    Statement,
    by_events,
    items_of,
    mean_s,
    samples_of,
    unit_of,
)
from precisionbench.statistics import tail_is_supported

RULE = "trtexec"
SOURCE = Source(
    "TensorRT, samples/common/sampleReporting.cpp and sampleInference.cpp",
    "https://github.com/NVIDIA/TensorRT/blob/a892d22267d9cd2dedc1a0893e6892ac901f6d3d/"
    "samples/common/sampleReporting.cpp",
)
_COMPUTE = "the call between two CUDA events on the compute stream, without transfers"
_GRAPH = "one replay of the call as a CUDA graph (the default of TensorRT 11), between two events"
_ENQUEUE = (
    "host time to enqueue a call; here with an empty queue, in trtexec while the previous call "
    "still runs"
)
_WALL = (
    "from enqueueing the first query to the end of the last, by the host clock, without "
    "transfers; in items per second, while trtexec's qps counts batches"
)
_WALL_WITH = (
    "the same with copies of inputs and outputs, on separate streams that may overlap with other "
    "queries: at least the slowest of the three steps, at most their sum"
)
_LATENCY = "the sum of H2D latency, GPU compute time and D2H latency of one query"
_H2D = "copies of the inputs from pinned host memory to the GPU, between two events"
_D2H = "copies of the outputs from the GPU to pinned host memory, between two events"
_TAIL = 0.99
_NO_EVENTS = "the run was not timed with CUDA events, as trtexec does"
_NOT_MEASURED = "not measured"


def statements(row: BackendResult) -> Iterator[Statement]:
    """GPU compute time, enqueue time, throughput by wall-clock time, transfers and latency.

    Args:
        row: a measured row.
    """
    yield from _compute(row)
    yield _time("GPU compute time, CUDA graph, median", _GRAPH, row.passes.graph_s, row, "graph")
    yield _time("enqueue time, median", _ENQUEUE, row.passes.enqueue_s, row, "enqueue")
    yield _throughput(row)
    yield _time("H2D latency, median", _H2D, row.passes.to_device_s, row, "transfers")
    yield _time("D2H latency, median", _D2H, row.passes.to_host_s, row, "transfers")
    yield _latency(row)
    yield _throughput_with_transfers(row)


def percentile(samples: Sequence[float], p: float) -> float:
    """A percentile by trtexec's definition: of n sorted samples the one at n - 1 - int((1 - p) n).

    Args:
        samples: at least one, in any one unit.
        p: the percentile as a share, e.g. 0.99.
    """
    excluded = int((1 - p) * len(samples))
    return sorted(samples)[max(len(samples) - 1 - excluded, 0)]


def _compute(row: BackendResult) -> Iterator[Statement]:
    samples, per_sample = samples_of(row), row.measurement.calls_per_sample
    missing = "" if by_events(row) else _NO_EVENTS
    yield _stated("GPU compute time, median", _COMPUTE, median(samples), missing)
    yield _stated("GPU compute time, mean", _COMPUTE, mean(samples), missing)
    if not missing and per_sample > 1:
        missing = f"each sample is the mean of {per_sample} calls, so percentiles are not known"
    elif not missing and not tail_is_supported(len(samples), _TAIL):
        missing = f"{len(samples)} samples are too few for a 99th percentile, which needs 299"
    yield _stated(
        "GPU compute time, percentile(99%)", _COMPUTE, percentile(samples, _TAIL), missing
    )


def _stated(figure: str, inside: str, value: float, missing: str) -> Statement:
    if missing:
        return Statement(RULE, figure, "s", inside, SOURCE, missing=missing)
    return Statement(RULE, figure, "s", inside, SOURCE, value=value)


def _time(
    figure: str, inside: str, samples: tuple[float, ...], row: BackendResult, pass_: str
) -> Statement:
    missing = "" if samples else row.passes.unknown.get(pass_, _NOT_MEASURED)
    return _stated(figure, inside, median(samples) if samples else 0.0, missing)


def _throughput(row: BackendResult) -> Statement:
    rate = items_of(row) / mean_s(row)
    figure = "throughput, no transfers"
    return Statement(RULE, figure, unit_of(row), _WALL, SOURCE, value=rate, kind="derived")


def _steps(row: BackendResult) -> tuple[tuple[float, float, float] | None, str]:
    """H2D, compute and D2H time of one query, or the reason why they are not known."""
    to_device, to_host = row.passes.to_device_s, row.passes.to_host_s
    if not (to_device and to_host):
        reason = row.passes.unknown.get("transfers", _NOT_MEASURED)
        return None, f"transfer times: {reason}"
    if not by_events(row):
        return None, _NO_EVENTS
    return (median(to_device), median(samples_of(row)), median(to_host)), ""


def _latency(row: BackendResult) -> Statement:
    steps, missing = _steps(row)
    if steps is None:
        return Statement(RULE, "latency, median", "s", _LATENCY, SOURCE, missing=missing)
    return Statement(
        RULE, "latency, median", "s", _LATENCY, SOURCE, value=sum(steps), kind="derived"
    )


def _throughput_with_transfers(row: BackendResult) -> Statement:
    figure, unit = "throughput, with transfers", unit_of(row)
    steps, missing = _steps(row)
    if steps is None:
        return Statement(RULE, figure, unit, _WALL_WITH, SOURCE, missing=missing)
    items = items_of(row)
    most, least = items / max(steps), items / sum(steps)
    return Statement(
        RULE, figure, unit, _WALL_WITH, SOURCE, most, low=least, high=most, kind="derived"
    )
