"""Every sample in the order taken: drift, throttling and steady state can be seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

import attrs

from precisionbench.analysis.data_quality import Observation
from precisionbench.report.formatting import time_text
from precisionbench.results.records import BackendResult, Block

# The plot's own units; it is stretched to whatever size it is shown at.
WIDTH, HEIGHT = 1000, 200
_MARGIN = 12
# Samples beyond so many times the span of the middle 90 % are drawn at the edge.
_FAR = 3.0
# Flat rows are not blown up to the clock's last digit.
_LEAST_SPAN = 0.004
_DIGITS = 4
_TONES = 4


@attrs.frozen
class Dots:
    """The samples of some workers.

    Attributes:
        tone: which colour, from 0.
        path: of an SVG; a dot for each.
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
        throttled: under blocks in which the device held its clocks down.
        sessions: where a session ends.
        median_at: height of the median.
        top: latency at the upper edge, with its unit.
        bottom: at the lower edge.
        text: what can be said of the samples.
        flags: what was observed, in one or two words each.
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
        observed: what its samples say of how far it can be trusted.
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
    """Each block with (x, sample): equal room for every sample."""
    step = WIDTH / sum(len(block.samples) for block in blocks)
    count = itertools.count()
    for block in blocks:
        yield block, [(round((next(count) + 0.5) * step), s) for s in block.samples]


def _span(ordered: Sequence[float]) -> tuple[float, float]:
    """Least and most latency drawn: all of it but samples that lie very far out."""
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    room = max(_FAR * (high - low), _LEAST_SPAN * low / 2)
    low, high = max(ordered[0], low - room), min(ordered[-1], high + room)
    lacking = max(0.0, _LEAST_SPAN * low - (high - low)) / 2
    return low - lacking, high + lacking


def _dots(places: _Places, low: float, high: float, y: Callable[[float], int]) -> Iterator[Dots]:
    workers = sorted({(block.session, block.replica) for block, _ in places})
    tones = {worker: n % _TONES for n, worker in enumerate(workers)}
    for tone in range(min(len(workers), _TONES)):
        mine = [xs for b, xs in places if tones[b.session, b.replica] == tone]
        yield Dots(tone, _path((x, y(s)) for xs in mine for x, s in xs if low <= s <= high))


def _path(points: Iterable[tuple[int, int]]) -> str:
    """Dots, each once: strokes without length, which round caps make visible."""
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
