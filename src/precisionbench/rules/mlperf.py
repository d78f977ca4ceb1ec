"""The figures that MLPerf's LoadGen would report for the same calls, with its unmet conditions."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

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
from precisionbench.statistics import early_stopping_estimate, early_stopping_minimum

_LOADGEN = "https://github.com/mlcommons/inference/blob/b66003e10e2db4b8c36a448b0545ec90fcc6e9e9/"
SOURCE = Source(
    "MLPerf Inference, loadgen/results.cc and mlperf.conf", f"{_LOADGEN}loadgen/results.cc"
)
EARLY_STOPPING = Source(
    "MLPerf Inference, loadgen/early_stopping.cc and mlperf.conf",
    f"{_LOADGEN}loadgen/early_stopping.cc",
)
# mlperf.conf: *.min_duration, and resnet50.Offline.min_query_count (other models have less where
# their data set is smaller).
MIN_DURATION_S = 600.0
MIN_OFFLINE_SAMPLES = 24_576
_OFFLINE = (
    "one query of all samples, from its issue to the last response, by the host clock; includes "
    "batching, transfers and host time"
)
_STREAM = (
    "one query from its issue to its response, by the host clock, one query at a time; here a "
    "synchronised call with inputs and outputs on the device"
)
_NOT_HERE = (
    "the samples are the same inputs repeated, not a data set",
    "pre- and post-processing and transfers are not included",
    "accuracy on the data set was not checked",
)


@attrs.frozen
class Scenario:
    """A scenario with one query at a time.

    Attributes:
        name: LoadGen's name of the scenario.
        samples_per_query: items in a query.
        percentile: the percentile of the latency that is reported, as a share.
    """

    name: str
    samples_per_query: int
    percentile: float


SINGLE_STREAM = Scenario("SingleStream", 1, 0.90)
MULTI_STREAM = Scenario("MultiStream", 8, 0.99)


def statements(row: BackendResult) -> Iterator[Statement]:
    """The figures of the scenarios Offline, SingleStream and MultiStream.

    Args:
        row: a measured row.
    """
    yield _offline(row)
    yield _stream(row, SINGLE_STREAM)
    yield _stream(row, MULTI_STREAM)


def _offline(row: BackendResult) -> Statement:
    calls = len(samples_of(row)) * row.measurement.calls_per_sample
    items, total_s = calls * items_of(row), calls * mean_s(row)
    unmet = [*_NOT_HERE, "the items were not one query"]
    if items < MIN_OFFLINE_SAMPLES:
        unmet.append(f"{items:,} samples instead of {MIN_OFFLINE_SAMPLES:,} or the whole data set")
    return Statement(
        "MLPerf Offline",
        "throughput",
        unit_of(row),
        _OFFLINE,
        SOURCE,
        value=items_of(row) / mean_s(row),
        kind="derived",
        unmet=(*unmet, *_too_short(total_s)),
    )


def _too_short(total_s: float) -> tuple[str, ...]:
    if total_s >= MIN_DURATION_S:
        return ()
    return (f"{total_s:.3g} s instead of {MIN_DURATION_S:.0f} s",)


def _stream(row: BackendResult, scenario: Scenario) -> Statement:
    queries = _queries(row)
    value = early_stopping_estimate(queries, scenario.percentile)
    missing = _missing(row, scenario, queries)
    share = f"{scenario.percentile:.0%}".removesuffix("%")
    return Statement(
        f"MLPerf {scenario.name}",
        f"{share}th percentile latency, early-stopping estimate",
        "s",
        _STREAM,
        EARLY_STOPPING,
        value=None if missing else value,
        missing=missing,
        unmet=() if missing else (*_NOT_HERE, *_too_short(sum(queries))),
    )


def _queries(row: BackendResult) -> list[float]:
    """Times of single calls with the device idle before and after; empty where there are none."""
    if by_events(row):
        return list(row.passes.wall_s)
    return samples_of(row) if row.measurement.calls_per_sample == 1 else []


def _missing(row: BackendResult, scenario: Scenario, queries: list[float]) -> str:
    """Why a scenario's figure cannot be stated; empty where it can be."""
    if row.batch_size != scenario.samples_per_query:
        batch = "is not known" if row.batch_size is None else f"is {row.batch_size}"
        return f"the batch size {batch}, but must be {scenario.samples_per_query}"
    if not queries and not by_events(row):
        per_sample = row.measurement.calls_per_sample
        return f"each sample is the mean of {per_sample} calls, so percentiles are not known"
    least = early_stopping_minimum(scenario.percentile)
    if len(queries) < least:
        return f"{len(queries)} synchronised calls, and early stopping needs {least}"
    return ""
