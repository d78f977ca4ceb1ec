"""The roofline: what classes of layers reach, against what the device allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.layer_classes import LayerClass, layer_classes
from precisionbench.diagnosis.roofline import peak_name
from precisionbench.reference_data.peaks import DeviceSpec
from precisionbench.report.formatting import scaled, significant, time_text
from precisionbench.report.html.numbered_points import FRAME, NumberedPoint, apart
from precisionbench.report.html.scales import Scale, Tick

# Peaks of 8 bits have a line where a row ran in them.
_RATES, _RATES_OF_8_BITS = ("fp32", "tf32", "fp16", "bf16"), ("int8", "fp8")
# Classes with a smaller share of a row's GEMM/conv time are left out.
_MIN_SHARE = 0.02
_MAX_POINTS = 80  # more could not stand apart
_MIN_AXIS_RATIO = 100.0
TONES = 8
_TEXT_AT = 0.12  # of the slope: where its text stands


@attrs.frozen
class Point(NumberedPoint):
    """A class of layers in a row.

    Attributes:
        row: its row.
        kind: its class.
        time: seconds in a call, with unit.
        share: of the row's GEMM/conv time.
        rate: FLOP/s, with unit.
        intensity: FLOP/byte.
        of_roof: share of the roofline at this intensity; None if unknown.
    """

    row: str
    kind: str
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
        apart(points),
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
