"""The roofline: what classes of layers reach, against what the device allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.layer_classes import LayerClass, layer_classes
from precisionbench.diagnosis.roofline import peak_name
from precisionbench.reference_data.peaks import DeviceSpec
from precisionbench.report.formatting import scaled, significant, time_text
from precisionbench.report.html.scales import Scale, Tick

# Peaks of 8 bits have a line where a row ran in them.
_RATES, _RATES_OF_8_BITS = ("fp32", "tf32", "fp16", "bf16"), ("int8", "fp8")
# Classes with a smaller share of a row's GEMM/conv time are left out.
_MIN_SHARE = 0.02
_MAX_POINTS = 80  # more could not stand apart
_MIN_AXIS_RATIO = 100.0
TONES = 8
# Sizes in pixels of a point's number and of the dot at its place.
RADIUS, DOT = 9.0, 2.5
# A number needs this much room: pixels, and percent of the narrowest screen (360 pixels).
_ROOM_PX = 2 * RADIUS
_ROOM = 100 * _ROOM_PX / 320
_TEXT_AT = 0.12  # of the slope: where its text stands
# Where a number is tried, in steps of the room that it needs, the nearest first.
_STEPS = sorted(itertools.product(range(-6, 7), range(-15, 16)), key=lambda s: (math.hypot(*s), s))


@attrs.frozen
class Frame:
    """The picture's edges: `left` and `right` in percent, the others in pixels."""

    left: float = 11.0
    right: float = 98.0
    top: float = 30.0
    bottom: float = 330.0
    height: float = 368.0


FRAME = Frame()


@attrs.frozen
class Point:
    """A class of layers in a row.

    Attributes:
        number: as in the table below.
        tone: its row's colour, from 0.
        row: its row.
        kind: its class.
        x: its place, in percent.
        y: its place, in pixels.
        label_x: where its number stands, in percent.
        label_y: where its number stands, in pixels.
        time: seconds in a call, with unit.
        share: of the row's GEMM/conv time.
        rate: FLOP/s, with unit.
        intensity: FLOP/byte.
        of_roof: share of the roofline at this intensity; None if unknown.
    """

    number: int
    tone: int
    row: str
    kind: str
    x: float
    y: float
    label_x: float
    label_y: float
    time: str
    share: float
    rate: str
    intensity: str
    of_roof: float | None


@attrs.frozen
class PeakLine:
    """The line of a peak of the device.

    Attributes:
        text: precisions and the rate.
        y: pixels.
        ridge_x: percent at which the bandwidth stops being the limit.
    """

    text: str
    y: float
    ridge_x: float


@attrs.frozen
class BandwidthLine:
    """The line of the memory bandwidth.

    Attributes:
        text: the bandwidth.
        text_x: where the text begins, in percent.
        text_y: its baseline, in pixels.
        x1: percent.
        y1: pixels.
        x2: percent.
        y2: pixels.
    """

    text: str
    text_x: float
    text_y: float
    x1: float
    y1: float
    x2: float
    y2: float


@attrs.frozen
class RooflinePlot:
    """All points and the lines of the device.

    Attributes:
        points: the longest of each row first.
        roofs: lines of the peaks.
        slope: line of the bandwidth; None if unknown.
        x_ticks: FLOP/byte.
        y_ticks: FLOP/s; `at` in pixels.
        device: name of the device.
    """

    points: tuple[Point, ...]
    roofs: tuple[PeakLine, ...]
    slope: BandwidthLine | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    device: str


def roofline_plot(rows: Mapping[str, Facts]) -> RooflinePlot | None:
    """The plot of the layer classes of all rows; None if no class or no peak is known.

    Args:
        rows: facts by row.
    """
    most = max(1, _MAX_POINTS // max(1, len(rows)))
    found = [(facts, one) for facts in rows.values() for one in _shown_classes(facts)[:most]]
    device = found[0][0].device if found else None
    peaks = _peaks(device, {peak_name(facts) for facts, _ in found})
    if device is None or not peaks:
        return None
    bandwidth = _peak(device, "bandwidth")
    x, y = _scales([one for _, one in found], peaks, bandwidth)
    tones = {name: n % TONES for n, name in enumerate(rows)}
    points = [
        _point(n, tones[f.row.backend], f, one, x, y) for n, (f, one) in enumerate(found, start=1)
    ]
    return RooflinePlot(
        _apart(points),
        tuple(_peak_lines(peaks, bandwidth, x, y)),
        _bandwidth_line(peaks, bandwidth, x, y),
        x.ticks(),
        y.ticks(),
        device.name,
    )


def _shown_classes(facts: Facts) -> Sequence[LayerClass]:
    classes = layer_classes(facts)
    total_s = sum(one.time_s for one in classes)
    return [one for one in classes if one.time_s >= _MIN_SHARE * total_s]


def _peak(device: DeviceSpec | None, name: str) -> float | None:
    found = device.peaks.get(name) if device else None
    return found.value if found else None


def _peaks(device: DeviceSpec | None, ran: Collection[str]) -> dict[float, list[str]]:
    """Names of precisions by their peak, the lowest first; `ran` are those that rows ran in."""
    found: dict[float, list[str]] = {}
    for name in (*_RATES, *(name for name in _RATES_OF_8_BITS if name in ran)):
        peak = _peak(device, name)
        if peak is not None:
            found.setdefault(peak, []).append(name)
    return found


def _scales(
    classes: Sequence[LayerClass], peaks: Iterable[float], bandwidth: float | None
) -> tuple[Scale, Scale]:
    ridges = [peak / bandwidth for peak in peaks] if bandwidth else []
    x = Scale.around([*(one.intensity for one in classes), *ridges], _MIN_AXIS_RATIO)
    y = Scale.around([*(one.flop_rate for one in classes), *peaks], _MIN_AXIS_RATIO)
    return (
        Scale(x.low / 1.5, x.high * 2, True, FRAME.left, FRAME.right),
        Scale(y.low / 1.5, y.high * 1.6, True, FRAME.bottom, FRAME.top),
    )


def _point(number: int, tone: int, facts: Facts, one: LayerClass, x: Scale, y: Scale) -> Point:
    share = one.time_s / facts.matrix_s if facts.matrix_s else 0.0
    return Point(
        number=number,
        tone=tone,
        row=facts.row.backend,
        kind=one.kind,
        x=x.at(one.intensity),
        y=y.at(one.flop_rate),
        label_x=x.at(one.intensity),
        label_y=y.at(one.flop_rate),
        time=time_text(one.time_s, 3),
        share=share,
        rate=scaled(one.flop_rate, "FLOP/s"),
        intensity=significant(one.intensity, 3),
        of_roof=_of_roof(facts, one),
    )


def _apart(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with their numbers moved so that they hide neither numbers nor places."""
    placed: list[Point] = []
    for point in points:
        others = [(one.x, one.y) for one in points if one is not point]
        others += [(one.label_x, one.label_y) for one in placed]
        places = (
            (round(point.x + right * _ROOM, 3), round(point.y + down * _ROOM_PX, 3))
            for right, down in _STEPS
        )
        free = (place for place in places if _is_free(place, others))
        label_x, label_y = next(free, (point.x, point.y))
        placed.append(attrs.evolve(point, label_x=label_x, label_y=label_y))
    return tuple(placed)


def _is_free(place: tuple[float, float], others: Iterable[tuple[float, float]]) -> bool:
    x, y = place
    is_inside = FRAME.left <= x <= FRAME.right and FRAME.top <= y <= FRAME.bottom
    return is_inside and all(
        abs(x - other_x) >= _ROOM - 1e-6 or abs(y - other_y) >= _ROOM_PX - 1e-6
        for other_x, other_y in others
    )


def _of_roof(facts: Facts, one: LayerClass) -> float | None:
    """The share of the roofline in the precision in which the row ran."""
    bandwidth = facts.peak("bandwidth")
    peak = facts.peak(peak_name(facts))
    if bandwidth is None or peak is None:
        return None
    return one.flop_rate / min(peak, one.intensity * bandwidth)


def _peak_lines(
    peaks: Mapping[float, Sequence[str]], bandwidth: float | None, x: Scale, y: Scale
) -> Iterable[PeakLine]:
    for peak, names in peaks.items():
        ridge = peak / bandwidth if bandwidth else x.low
        text = f"{' and '.join(names)} {scaled(peak, 'FLOP/s')}"
        yield PeakLine(text, y.at(peak), x.at(ridge))


def _bandwidth_line(
    peaks: Iterable[float], bandwidth: float | None, x: Scale, y: Scale
) -> BandwidthLine | None:
    """From the lower or the left edge up to the highest peak."""
    highest = max(peaks, default=None)
    if bandwidth is None or highest is None:
        return None
    start = max(x.low, y.low / bandwidth)
    end = highest / bandwidth
    x1, y1, x2, y2 = x.at(start), y.at(start * bandwidth), x.at(end), y.at(highest)
    return BandwidthLine(
        f"memory bandwidth {scaled(bandwidth, 'B/s')}",
        x1 + _TEXT_AT * (x2 - x1) + 1,
        y1 + _TEXT_AT * (y2 - y1) + 14,
        x1,
        y1,
        x2,
        y2,
    )
