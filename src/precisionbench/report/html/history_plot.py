"""A row over the runs of its history, with its levels and the dates of changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs

from precisionbench.analysis.history import LATENCY, History, Series
from precisionbench.report.formatting import duration, half_width, significant, time_text
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.report.html.sweep_plot import Dot
from precisionbench.report.study_words import change_text, date_text
from precisionbench.statistics import Interval

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 13.0, 97.0, 12.0, 112.0, 134.0
_ROOM = 0.15  # share of the range of values, at both ends
_LEAST_REACH = 0.01  # share of the value, so that noise is not magnified


@attrs.frozen
class ChangeMark:
    """A change of the level.

    Attributes:
        x: percent, between the two runs.
        tone: `good`, `bad` or `even`.
        text: the change in words.
    """

    x: float
    tone: str
    text: str


@attrs.frozen
class Level:
    """The mean of the runs between two changes.

    Attributes:
        left: percent.
        right: percent.
        y: pixels.
    """

    left: float
    right: float
    y: float


@attrs.frozen
class HistoryPanel:
    """One figure of a row over time.

    Attributes:
        name: the row's.
        of: the figure.
        text: the number of runs and of changes.
        dots: one for each run.
        levels: between changes.
        changes: marks of changes.
        ticks: of the vertical axis.
        labels: texts of these ticks.
        first: date of the first run.
        last: date of the last run.
    """

    name: str
    of: str
    text: str
    dots: tuple[Dot, ...]
    levels: tuple[Level, ...]
    changes: tuple[ChangeMark, ...]
    ticks: tuple[Tick, ...]
    labels: tuple[str, ...]
    first: str
    last: str


def history_panels(history: History) -> tuple[HistoryPanel, ...]:
    """A panel for each series of a history.

    Args:
        history: of a cell.
    """
    return tuple(map(_panel, history.series))


def _panel(series: Series) -> HistoryPanel:
    values = [point.value for point in series.points]
    x = Scale(0.0, max(1.0, len(values) - 1.0), start=LEFT + 2, end=RIGHT - 1)
    y = _scale(values)
    count = len(series.changes)
    ticks = y.ticks()
    return HistoryPanel(
        series.backend,
        series.of,
        f"{len(values)} runs, {count} change{'s' * (count != 1)}",
        tuple(_dot(series, place, x, y) for place in range(len(values))),
        tuple(_levels(series, values, x, y)),
        tuple(_marks(series, x)),
        ticks,
        tuple(_text(series, Interval(t.value, t.value, t.value)) for t in ticks),
        date_text(series.points[0].created),
        date_text(series.points[-1].created),
    )


def _scale(values: Sequence[Interval]) -> Scale:
    low, high = min(one.low for one in values), max(one.high for one in values)
    room = max(_ROOM * (high - low), _LEAST_REACH * high)
    return Scale(low - room, high + room, start=BOTTOM, end=TOP)


def _dot(series: Series, place: int, x: Scale, y: Scale) -> Dot:
    point = series.points[place]
    text = f"{date_text(point.created)}: {_text(series, point.value)} {half_width(point.value)}"
    value = point.value
    return Dot(x.at(place), y.at(value.value), y.at(value.low), y.at(value.high), text)


def _text(series: Series, value: Interval) -> str:
    if series.of != LATENCY:
        return f"{significant(value.value, 3)}x"
    return duration(value) if value.high > value.low else time_text(value.value, 3)


def _places(series: Series) -> list[int]:
    dates = [point.created for point in series.points]
    return [dates.index(change.first_after) for change in series.changes]


def _levels(series: Series, values: Sequence[Interval], x: Scale, y: Scale) -> list[Level]:
    bounds = [0, *_places(series), len(values)]
    found = []
    for start, end in itertools.pairwise(bounds):
        mean = sum(one.value for one in values[start:end]) / (end - start)
        found.append(Level(x.at(start) - 1, x.at(end - 1) + 1, y.at(mean)))
    return found


def _marks(series: Series, x: Scale) -> list[ChangeMark]:
    tones = {"faster": "good", "slower": "bad"}
    return [
        ChangeMark(
            (x.at(place - 1) + x.at(place)) / 2,
            tones.get(change.ratio.verdict.value, "even"),
            change_text(series, change),
        )
        for place, change in zip(_places(series), series.changes, strict=True)
    ]
