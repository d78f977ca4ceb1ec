"""The time of one call of a function, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from precisionbench.analysis.data_quality import observations
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.variation import least_interval_rounds, replicas
from precisionbench.report import formatting, rows
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.plain import WIDTH, item, paragraph, plain_text, styled, widen
from precisionbench.results import BackendResult, ComparisonData, Measurement
from precisionbench.results.measurement import RECORDED
from precisionbench.statistics import tail_is_supported

if TYPE_CHECKING:
    from rich.console import Console

_CLOCKS = {"cuda_events": "CUDA events", "host": "host clock"}
# Notes on speed-ups, which a single row has none of, and on what `covers` says.
_OF_SPEEDUPS = ("one_process",)


def to_text(data: ComparisonData, width: int = WIDTH) -> str:
    """The time of a call as plain text.

    Args:
        data: a comparison of one row.
        width: maximum number of columns; 40 or more.
    """
    return plain_text(lambda console: show(data, console), width)


def show(data: ComparisonData, console: Console) -> None:
    """Write the time of a call to a rich console.

    Args:
        data: a comparison of one row.
        console: to write to.
    """
    widen(console)
    width, first, *rest = console.width, *summary(data)
    console.print(paragraph(first, width, "bold"))
    for sentence in (*rest, f"{rows.device(data)}, {rows.versions(data)}"):
        console.print(item("", sentence, width))
    if found := warnings_of(data):
        console.print(styled())
        console.print(styled("Notes", style="bold"))
    for sentence in found:
        console.print(item("", sentence, width))


def summary(data: ComparisonData) -> Iterator[str]:
    """The figures in a few lines.

    Args:
        data: a comparison of one row.
    """
    row = data.results[0]
    yield f"{row.backend}: {_latency(row)}"
    if _count(row.measurement) > 1:
        yield f"the interval includes {covers(data)}"
        yield f"{_percentiles(row)}; first call {_time(row.measurement.first_call_s)}"
    yield _samples(row.measurement)


def covers(data: ComparisonData) -> str:
    """What the interval includes, as a noun phrase.

    Args:
        data: a comparison of one row.
    """
    processes = len(replicas(data.results[0].measurement.blocks))
    if processes > 1:
        return f"the variance between {processes} processes and within them"
    if data.noise_floor:
        return (
            "the variance within this process, and the noise floor between processes "
            f"({data.noise_floor:.2%})"
        )
    within = "the variance within this process only: another process may differ by more"
    is_recorded = data.results[0].measurement.ended_by == RECORDED
    return within if is_recorded else f"{within}; use 2 or more replicas"


def warnings_of(data: ComparisonData) -> tuple[str, ...]:
    """What qualifies the figures, a sentence each.

    Args:
        data: a comparison of one row.
    """
    row = data.results[0]
    seen = (*observations(data)[row.backend], *interval_notes(data)[row.backend])
    disturbed = disturbance_text(data)
    found = (
        *([f"disturbed: {disturbed}"] if disturbed else []),
        *data.notes,
        *row.warnings,
        *(one.text for one in seen if one.code not in _OF_SPEEDUPS),
    )
    return tuple(dict.fromkeys(found))


def percentile(measurement: Measurement, p: float) -> float | None:
    """A percentile of the samples in seconds; None where there are too few for it.

    Args:
        measurement: of a row.
        p: the percentile as a share, above 0.5.
    """
    import numpy as np

    samples = [sample for block in measurement.blocks for sample in block.samples]
    return float(np.quantile(samples, p)) if tail_is_supported(len(samples), p) else None


def _latency(row: BackendResult) -> str:
    latency, measurement = row.latency, row.measurement
    if _count(measurement) == 1:
        return f"{_time(latency.value)} (one sample, so without an interval)"
    kind = "95 % CI" if _has_interval(measurement) else "range"
    ends = f"{_time(latency.low)} to {_time(latency.high)}"
    return f"{formatting.duration(latency)} {formatting.half_width(latency)} ({kind} {ends})"


def _has_interval(measurement: Measurement) -> bool:
    return len(measurement.rounds) >= least_interval_rounds(measurement.blocks)


def _count(measurement: Measurement) -> int:
    return sum(len(block.samples) for block in measurement.blocks)


def _time(seconds: float) -> str:
    return formatting.time_text(seconds, 4)


def _percentiles(row: BackendResult) -> str:
    measurement = row.measurement
    samples = [sample for block in measurement.blocks for sample in block.samples]
    tails = [(p, percentile(measurement, p)) for p in (0.9, 0.99)]
    texts = [f"p50 {_time(median(samples))}"]
    texts += [f"p{p * 100:.0f} {_time(value)}" for p, value in tails if value is not None]
    return ", ".join(texts)


def _samples(measurement: Measurement) -> str:
    """Such as `480 samples of one call each in 12 rounds, host clock, ended by target`."""
    calls = measurement.calls_per_sample
    each = "one call each" if calls == 1 else f"{calls:,} calls each"
    samples = f"{_number(_count(measurement), 'sample')} of {each}"
    clock = _CLOCKS.get(measurement.clock, measurement.clock)
    if measurement.ended_by == RECORDED:
        return f"{samples}, {clock}; each call of the program was timed once"
    rounds = _number(len(measurement.rounds), "round")
    return f"{samples} in {rounds}, {clock}, ended by {measurement.ended_by}"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
