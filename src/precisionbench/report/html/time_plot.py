"""The time of a call by kernel class, as one stacked bar for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from precisionbench.diagnosis import parts
from precisionbench.diagnosis.findings import RooflinePoint
from precisionbench.report.formatting import time_text
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.results import ComparisonData

OUTSIDE = "outside"
_IDLE = "GPU idle"
# From this slow-down on, the bar's text has the time with and without the profiler.
_MIN_SLOW_DOWN = 1.1
WORDS = {
    parts.MATRIX: "GEMM and convolutions",
    parts.LAYOUT: "layout conversions",
    parts.CAST: "casts",
    parts.COPY: "copies",
    parts.NORM: "normalisation",
    parts.POINTWISE: "pointwise",
    parts.REDUCTION: "pooling and reductions",
    parts.OTHER: "other",
    OUTSIDE: "host overhead",
}


@attrs.frozen
class Segment:
    """A part of a bar.

    Attributes:
        category: of time.
        words: its name for the reader.
        time_s: seconds in a call.
        text: the time with its unit.
        share: of the whole bar.
        at: where it starts, in percent.
        width: in percent.
    """

    category: str
    words: str
    time_s: float
    text: str
    share: float
    at: float
    width: float


@attrs.frozen
class TimeBar:
    """A row's time.

    Attributes:
        name: the row's.
        text: its whole length with its unit, and the latency where the profiler slowed it down.
        segments: in the order of the legend.
        is_fastest: whether it is the row with the lowest latency, whose segments are all labelled.
    """

    name: str
    text: str
    segments: tuple[Segment, ...]
    is_fastest: bool


@attrs.frozen
class TimePlot:
    """All rows on one axis.

    Attributes:
        bars: one for each row whose kernels were recorded.
        legend: categories that occur, with words.
        ticks: of the axis, in seconds.
    """

    bars: tuple[TimeBar, ...]
    legend: tuple[tuple[str, str], ...]
    ticks: tuple[Tick, ...]


def time_plot(
    data: ComparisonData, roofs: Mapping[str, Sequence[RooflinePoint]]
) -> TimePlot | None:
    """Seconds of a call by kernel class; None if no kernels were recorded.

    GPU idle, the part of the latency between kernels, is a class of its own.

    Args:
        data: the comparison.
        roofs: as the diagnosis has them, by row.
    """
    latencies_s = {row.backend: row.latency.value for row in data.results}
    times = {
        name: _times(roofs[name], latency_s)
        for name, latency_s in latencies_s.items()
        if roofs.get(name)
    }
    if not times:
        return None
    longest_s = max(sum(found.values()) for found in times.values())
    scale = Scale(0.0, longest_s, start=0.0, end=100.0)
    words = WORDS if data.environment.gpu is None else {**WORDS, OUTSIDE: _IDLE}
    fastest = min(times, key=latencies_s.__getitem__)
    occurring = [c for c in words if any(found.get(c) for found in times.values())]
    return TimePlot(
        tuple(
            TimeBar(
                name,
                _total_text(sum(found.values()), latencies_s[name]),
                _segments(found, scale, words),
                name == fastest,
            )
            for name, found in times.items()
        ),
        tuple((category, words[category]) for category in occurring),
        scale.ticks(),
    )


def _times(roofs: Sequence[RooflinePoint], latency_s: float) -> dict[str, float]:
    found = {roof.category: roof.time_s for roof in roofs}
    ordered = {category: found[category] for category in WORDS if category in found}
    beyond_s = latency_s - sum(found.values())
    return {**ordered, OUTSIDE: beyond_s} if beyond_s > 0 else ordered


def _segments(
    times: Mapping[str, float], scale: Scale, words: Mapping[str, str]
) -> tuple[Segment, ...]:
    total_s = sum(times.values())
    segments, start_s = [], 0.0
    for category, time_s in times.items():
        at = scale.at(start_s)
        start_s += time_s
        share, width = time_s / total_s, round(scale.at(start_s) - at, 3)
        text = time_text(time_s, 3)
        segments.append(Segment(category, words[category], time_s, text, share, at, width))
    return tuple(segments)


def _total_text(total_s: float, latency_s: float) -> str:
    """The total time; with and without the profiler if that slowed the row down."""
    if total_s <= _MIN_SLOW_DOWN * latency_s:
        return time_text(total_s, 3)
    return f"{time_text(total_s, 3)} under the profiler, {time_text(latency_s, 3)} without"
