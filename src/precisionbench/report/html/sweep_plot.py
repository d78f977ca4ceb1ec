"""Throughput by batch size on logarithmic axes, with intervals and crossovers."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from precisionbench.analysis.sweep import RowSweep, Sweep, SweepPoint
from precisionbench.report.formatting import duration, half_width, number, significant
from precisionbench.report.html.numbered_points import FRAME
from precisionbench.report.html.roofline_plot import TONES
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.report.study_words import crossover_text

_ROOM = 1.15  # factor beyond the values on either side
_MOST_SIZES = 10  # batch sizes with a label of their own
_BAR = 8.0  # pixels from the bar of one crossover to the next


@attrs.frozen
class Dot:
    """A row at one batch size, or in one run.

    Attributes:
        x: percent.
        y: pixels.
        low_y: of the interval's lower end.
        high_y: of the interval's upper end.
        text: the figures.
    """

    x: float
    y: float
    low_y: float
    high_y: float
    text: str


@attrs.frozen
class Curve:
    """A row at all batch sizes.

    Attributes:
        name: the row's.
        tone: number of its colour, from 0.
        dots: in the order of the batch size.
    """

    name: str
    tone: int
    dots: tuple[Dot, ...]


@attrs.frozen
class CrossoverMark:
    """Where a row becomes faster than the reference.

    Attributes:
        tone: number of the row's colour.
        y: pixels, of the bar from `left` to `right`.
        left: percent, where the range of batch sizes begins.
        right: where it ends.
        at: the interpolated place; None where there is none.
        text: the crossover in words.
    """

    tone: int
    y: float
    left: float
    right: float
    at: float | None
    text: str


@attrs.frozen
class SweepPlot:
    """All rows on common axes.

    Attributes:
        curves: one for each row.
        crossovers: of rows that have one between two batch sizes.
        x_ticks: batch sizes.
        y_ticks: items per second.
    """

    curves: tuple[Curve, ...]
    crossovers: tuple[CrossoverMark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def sweep_plot(sweep: Sweep) -> SweepPlot | None:
    """The plot of a sweep; None if no row has two batch sizes.

    Args:
        sweep: over batch sizes.
    """
    rows = [row for row in sweep.rows if len(row.points) > 1]
    if not rows:
        return None
    points = [point for row in rows for point in row.points]
    x = _scale([float(p.batch_size) for p in points], FRAME.left, FRAME.right)
    rates = [end for p in points for end in (p.throughput.low, p.throughput.high)]
    y = _scale(rates, FRAME.bottom, FRAME.top)
    tones = {row.backend: place % TONES for place, row in enumerate(rows)}
    crossing = enumerate(row for row in rows if _has_mark(row))
    return SweepPlot(
        tuple(_curve(row, tones[row.backend], x, y) for row in rows),
        tuple(_mark(row, tones[row.backend], place, sweep, x) for place, row in crossing),
        _sizes(points, x),
        y.ticks(),
    )


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    around = Scale.around(values)
    return Scale(around.low / _ROOM, around.high * _ROOM, True, start, end)


def _curve(row: RowSweep, tone: int, x: Scale, y: Scale) -> Curve:
    return Curve(row.backend, tone, tuple(_dot(point, x, y) for point in row.points))


def _dot(point: SweepPoint, x: Scale, y: Scale) -> Dot:
    rate = point.throughput
    text = (
        f"batch {point.batch_size}: {number(rate)} items/s {half_width(rate)}, "
        f"{duration(point.latency)} a call"
    )
    return Dot(x.at(point.batch_size), y.at(rate.value), y.at(rate.low), y.at(rate.high), text)


def _has_mark(row: RowSweep) -> bool:
    return row.crossover is not None and row.crossover.kind == "between"


def _mark(row: RowSweep, tone: int, place: int, sweep: Sweep, x: Scale) -> CrossoverMark:
    found = row.crossover
    assert found is not None
    assert found.batch_size is not None
    above = row.points[0].batch_size if found.above is None else found.above
    at = None if found.at.value is None else x.at(found.at.value)
    text = crossover_text(row, sweep.reference)
    y = FRAME.top + _BAR * (place + 1)
    return CrossoverMark(tone, y, x.at(above), x.at(found.batch_size), at, text)


def _sizes(points: Sequence[SweepPoint], x: Scale) -> tuple[Tick, ...]:
    sizes = sorted({point.batch_size for point in points})
    every = -(-len(sizes) // _MOST_SIZES)
    return tuple(Tick(x.at(size), size) for size in sizes[::every])


def rate_text(rate: float) -> str:
    """The label of a throughput, such as `15 k`.

    Args:
        rate: items per second.
    """
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    scale, prefix = next((pair for pair in prefixes if rate >= pair[0]), (1.0, ""))
    return f"{rate / scale:.3g} {prefix}".rstrip()


def size_text(size: float) -> str:
    """The label of a batch size.

    Args:
        size: items per call.
    """
    return significant(size, len(str(int(size))))
