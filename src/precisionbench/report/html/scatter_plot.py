"""Speed against error of the configurations that a search has timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from precisionbench.analysis.tuning import front, loss_of, ratio_text
from precisionbench.report import tuning_texts as texts
from precisionbench.report.html.numbered_points import FRAME, NumberedPoint, apart
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.results.tuning import TuningData
from precisionbench.statistics import Interval

BEST_TONE, FRONT_TONE, OTHER_TONE = 2, 0, 7
_MOST = 1e30  # a larger error has no place on an axis
_MIN_LOSS_RATIO, _MIN_SPEED_RATIO = 30.0, 1.5
_MARGIN = 0.08  # of an even axis, on both sides
_MAX_POINTS = 80  # more could not stand apart


@attrs.frozen
class ScatterPoint(NumberedPoint):
    """A configuration.

    Attributes:
        spec: its spec.
        low_y: place of the lower end of its speed-up.
        high_y: place of the upper end.
        text: its speed-up and its error.
    """

    spec: str
    low_y: float
    high_y: float
    text: str


@attrs.frozen
class ScatterPlot:
    """All points, and the bound.

    Attributes:
        points: the finalists first.
        x_ticks: of the error, or of the drop of the metric.
        y_ticks: of the speed-up; `at` in pixels.
        one_y: place of a speed-up of 1.
        limit_x: place of the bound; None where it is beyond the axis.
        x_title: what is on the axis of the error.
        is_log: whether that axis is logarithmic.
    """

    points: tuple[ScatterPoint, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    one_y: float
    limit_x: float | None
    x_title: str
    is_log: bool


@attrs.frozen
class Timed:
    """A configuration with a speed-up and a loss.

    Attributes:
        spec: its spec.
        speedup: over the reference.
        loss: its error, or the drop of its metric.
        tone: its colour: of the best one, of the front, or of others.
    """

    spec: str
    speedup: Interval
    loss: Interval
    tone: int


def timed(data: TuningData) -> tuple[Timed, ...]:
    """The configurations whose speed-up and loss are known, the finalists first.

    Args:
        data: the result.
    """
    points = front(data)
    tones = {one.spec: FRONT_TONE for one in points if one.is_on_front} | {data.best: BEST_TONE}
    speeds = {one.spec: one.speedup for one in points}
    speeds |= {one.spec: one.speedup for one in data.trials if one.spec not in speeds}
    return tuple(
        Timed(spec, speedup, loss, tones.get(spec, OTHER_TONE))
        for spec, speedup in speeds.items()
        if speedup is not None
        and (loss := loss_of(data, spec)) is not None
        and abs(loss.value) < _MOST
    )


def scatter_plot(data: TuningData, numbers: Mapping[str, int]) -> ScatterPlot | None:
    """The plot; None where nothing has both figures.

    Args:
        data: the result.
        numbers: of the configurations, as in the tables.
    """
    found = timed(data)[:_MAX_POINTS]
    if not found:
        return None
    x = _loss_scale([one.loss.value for one in found], data.bound.limit)
    y = _speed_scale([one.speedup for one in found])
    limit = data.bound.limit
    return ScatterPlot(
        points=apart([_point(data, one, numbers[one.spec], x, y) for one in found]),
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        one_y=y.at(1.0),
        limit_x=x.at(limit) if x.low <= limit <= x.high else None,
        x_title=texts.loss_name(data),
        is_log=x.log,
    )


def _loss_scale(losses: Sequence[float], limit: float) -> Scale:
    """A logarithmic axis where all losses are above 0, else an even one; the bound is on it."""
    values = [*losses, *([limit] if limit < _MOST else [])]
    if min(values) > 0:
        around = Scale.around(values, _MIN_LOSS_RATIO)
        return Scale(around.low / 1.3, around.high * 1.3, True, FRAME.left, FRAME.right)
    low, high = min(values), max(values)
    room = max(_MARGIN * (high - low), 0.05 * max(abs(low), abs(high)), 1e-6)
    return Scale(low - room, high + room, False, FRAME.left, FRAME.right)


def _speed_scale(speeds: Iterable[Interval]) -> Scale:
    around = Scale.around([1.0, *(one.value for one in speeds)], _MIN_SPEED_RATIO)
    return Scale(around.low / 1.05, around.high * 1.05, True, FRAME.bottom, FRAME.top)


def _point(data: TuningData, one: Timed, number: int, x: Scale, y: Scale) -> ScatterPoint:
    place_x, place_y = x.at(one.loss.value), y.at(one.speedup.value)
    return ScatterPoint(
        number=number,
        tone=one.tone,
        x=place_x,
        y=place_y,
        label_x=place_x,
        label_y=place_y,
        spec=one.spec,
        low_y=y.at(one.speedup.low),
        high_y=y.at(one.speedup.high),
        text=f"{ratio_text(one.speedup)}, {texts.loss_text(data, one.loss)}",
    )
