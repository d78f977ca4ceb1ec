"""Every sample over time, relative to its row's median: drift, throttling and the steady state.

All rows have the same axis, so that their noise can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import attrs

from precisionbench.report.formatting import significant
from precisionbench.report.html.distribution_plot import near_range, samples_of
from precisionbench.results import BackendResult, Block

# Units of the plot, which is stretched to the size at which it is shown.
WIDTH, HEIGHT = 1000, 200
_MARGIN = 12
# The axis reaches at least this far from the median, so that clock noise is not magnified.
_MIN_REACH = 0.002
_TONES = 4


@attrs.frozen
class Dots:
    """The samples of some workers.

    Attributes:
        tone: number of the colour, from 0.
        path: of an SVG, with a dot for each sample.
    """

    tone: int
    path: str


@attrs.frozen
class LatencyPanel:
    """One row's samples over time.

    Attributes:
        name: the row's.
        dots: by worker.
        far: samples beyond the plot, at its edge.
        bands: of every other round.
        throttled: marks of blocks in which the device was throttled.
        sessions: lines between sessions.
        text: rounds and workers, and how many samples are beyond the plot.
    """

    name: str
    dots: tuple[Dots, ...]
    far: str
    bands: str
    throttled: str
    sessions: str
    text: str


@attrs.frozen
class LatencyPlot:
    """The samples of all rows over time, on one axis.

    Attributes:
        panels: one for each row.
        median_at: height of each row's median.
        top: difference from the median at the upper edge.
        bottom: at the lower edge.
    """

    panels: tuple[LatencyPanel, ...]
    median_at: int
    top: str
    bottom: str


@attrs.frozen
class _Axis:
    """Heights of samples relative to their row's median, from `low` to `high`."""

    low: float
    high: float

    def y(self, ratio: float) -> int:
        share = min(1.0, max(0.0, (ratio - self.low) / (self.high - self.low)))
        return round(HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN))

    def holds(self, ratio: float) -> bool:
        return self.low <= ratio <= self.high


def latency_plot(results: Sequence[BackendResult]) -> LatencyPlot:
    """Draw the samples of all rows in the order taken.

    Args:
        results: the rows.
    """
    ranges = [_relative_range(row) for row in results]
    axis = _Axis(
        min([1 - _MIN_REACH, *(low for low, _ in ranges)]),
        max([1 + _MIN_REACH, *(high for _, high in ranges)]),
    )
    return LatencyPlot(
        tuple(_panel(row, axis) for row in results),
        axis.y(1.0),
        f"+{significant(100 * (axis.high - 1), 2)} %",
        f"\N{MINUS SIGN}{significant(100 * (1 - axis.low), 2)} %",
    )


def _relative_range(row: BackendResult) -> tuple[float, float]:
    ordered = samples_of(row)
    low, high = near_range(ordered)
    return low / median(ordered), high / median(ordered)


def _panel(row: BackendResult, axis: _Axis) -> LatencyPanel:
    blocks = sorted(row.measurement.blocks, key=lambda b: (b.session, b.round, b.position))
    places = list(_places(blocks, median(samples_of(row))))
    far = [(x, axis.y(r)) for _, xs in places for x, r in xs if not axis.holds(r)]
    return LatencyPanel(
        name=row.backend,
        dots=tuple(_dots(places, axis)),
        far=_path(far),
        bands=_bands(places),
        throttled=_throttled(places),
        sessions=_sessions(places),
        text=_text(blocks, len(far)),
    )


_Places = list[tuple[Block, list[tuple[int, float]]]]


def _places(
    blocks: Sequence[Block], usual_s: float
) -> Iterator[tuple[Block, list[tuple[int, float]]]]:
    """Each block with (x, sample relative to the median) pairs at equal distances."""
    step = WIDTH / sum(len(block.samples) for block in blocks)
    count = itertools.count()
    for block in blocks:
        yield block, [(round((next(count) + 0.5) * step), s / usual_s) for s in block.samples]


def _dots(places: _Places, axis: _Axis) -> Iterator[Dots]:
    workers = sorted({(block.session, block.replica) for block, _ in places})
    tones = {worker: n % _TONES for n, worker in enumerate(workers)}
    for tone in range(min(len(workers), _TONES)):
        mine = [xs for b, xs in places if tones[b.session, b.replica] == tone]
        yield Dots(tone, _path((x, axis.y(r)) for xs in mine for x, r in xs if axis.holds(r)))


def _path(points: Iterable[tuple[int, int]]) -> str:
    """Each distinct dot as a stroke of length zero, which round caps make visible."""
    return "".join(f"M{x} {y}h0" for x, y in dict.fromkeys(points))


def _bands(places: _Places) -> str:
    """Rectangles behind every other round."""
    found = []
    rounds = itertools.groupby(places, key=lambda place: (place[0].session, place[0].round))
    for number, (_, group) in enumerate(rounds):
        xs = [x for _, found_xs in group for x, _ in found_xs]
        if number % 2:
            found.append(f"M{xs[0]} 0H{xs[-1]}V{HEIGHT}H{xs[0]}z")
    return "".join(found)


def _throttled(places: _Places) -> str:
    held = [xs for block, xs in places if block.state and block.state.throttled]
    return "".join(f"M{xs[0][0]} {HEIGHT - 3}H{xs[-1][0] + 1}" for xs in held)


def _sessions(places: _Places) -> str:
    pairs = itertools.pairwise(places)
    ends = [after[1][0][0] for before, after in pairs if before[0].session != after[0].session]
    return "".join(f"M{x} 0V{HEIGHT}" for x in ends)


def _text(blocks: Sequence[Block], far: int) -> str:
    workers = len({(block.session, block.replica) for block in blocks})
    rounds = len({(block.session, block.round) for block in blocks})
    text = f"{_counted(rounds, 'round')}, {_counted(workers, 'worker')}"
    return f"{text}; {_counted(far, 'sample')} beyond the axis" if far else text


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
