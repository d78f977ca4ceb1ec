"""The plot of every sample over time, which shows drift, throttling and the steady state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

import attrs

from precisionbench.analysis.data_quality import Observation
from precisionbench.report.formatting import time_text
from precisionbench.results import BackendResult, Block

# Units of the plot, which is stretched to the size at which it is shown.
WIDTH, HEIGHT = 1000, 200
_MARGIN = 12
# Samples beyond this many times the span of the middle 90 % are drawn at the edge.
_FAR_SPANS = 3.0
# The smallest span of the y axis relative to the latency, so that clock noise is not magnified.
_MIN_SPAN = 0.004
_DIGITS = 4
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
        median_at: height of the median.
        top: latency at the upper edge, with its unit.
        bottom: at the lower edge.
        text: summary of the samples.
        flags: observations, in one or two words each.
    """

    name: str
    dots: tuple[Dots, ...]
    far: str
    bands: str
    throttled: str
    sessions: str
    median_at: float
    top: str
    bottom: str
    text: str
    flags: tuple[str, ...]


def latency_panel(row: BackendResult, observed: Sequence[Observation] = ()) -> LatencyPanel:
    """Draw a row's samples.

    Args:
        row: the row.
        observed: observations on its samples.
    """
    blocks = sorted(row.measurement.blocks, key=lambda b: (b.session, b.round, b.position))
    samples = sorted(sample for block in blocks for sample in block.samples)
    low, high = _span(samples)
    places = list(_places(blocks))

    def y(sample: float) -> int:
        share = min(1.0, max(0.0, (sample - low) / (high - low)))
        return round(HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN))

    far = sum(not low <= sample <= high for sample in samples)
    return LatencyPanel(
        name=row.backend,
        dots=tuple(_dots(places, low, high, y)),
        far=_path((x, y(s)) for _, xs in places for x, s in xs if not low <= s <= high),
        bands=_bands(places),
        throttled=_throttled(places),
        sessions=_sessions(places),
        median_at=y(median(samples)),
        top=time_text(high, _DIGITS),
        bottom=time_text(low, _DIGITS),
        text=_text(row, samples, far),
        flags=tuple(found.code.replace("_", " ") for found in observed),
    )


_Places = list[tuple[Block, list[tuple[int, float]]]]


def _places(blocks: Sequence[Block]) -> Iterator[tuple[Block, list[tuple[int, float]]]]:
    """Each block with (x, sample) pairs at equal distances."""
    step = WIDTH / sum(len(block.samples) for block in blocks)
    count = itertools.count()
    for block in blocks:
        yield block, [(round((next(count) + 0.5) * step), s) for s in block.samples]


def _span(ordered: Sequence[float]) -> tuple[float, float]:
    """The range of the y axis, which leaves out samples that lie very far out."""
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    room = max(_FAR_SPANS * (high - low), _MIN_SPAN * low / 2)
    low, high = max(ordered[0], low - room), min(ordered[-1], high + room)
    lacking = max(0.0, _MIN_SPAN * low - (high - low)) / 2
    return low - lacking, high + lacking


def _dots(places: _Places, low: float, high: float, y: Callable[[float], int]) -> Iterator[Dots]:
    workers = sorted({(block.session, block.replica) for block, _ in places})
    tones = {worker: n % _TONES for n, worker in enumerate(workers)}
    for tone in range(min(len(workers), _TONES)):
        mine = [xs for b, xs in places if tones[b.session, b.replica] == tone]
        yield Dots(tone, _path((x, y(s)) for xs in mine for x, s in xs if low <= s <= high))


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


def _text(row: BackendResult, ordered: Sequence[float], far: int) -> str:
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    blocks = row.measurement.blocks
    workers = len({(block.session, block.replica) for block in blocks})
    rounds = len({(block.session, block.round) for block in blocks})
    text = (
        f"median {time_text(median(ordered), _DIGITS)}, 90 % of {len(ordered):,} samples between "
        f"{time_text(low, _DIGITS)} and {time_text(high, _DIGITS)}; {_counted(rounds, 'round')}, "
        f"{_counted(workers, 'worker')}"
    )
    return f"{text}; {far} far out, up to {time_text(ordered[-1], _DIGITS)}" if far else text


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
