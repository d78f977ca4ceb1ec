"""The distribution of each row's samples, all rows on one axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import attrs

from precisionbench.analysis.data_quality import Observation
from precisionbench.report.formatting import time_text
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.results import BackendResult

# Units of each row's shape, which is stretched to the size at which it is shown.
WIDTH, HEIGHT = 1000, 28
# Samples beyond this many times the span of the middle 90 % do not stretch the axis.
_FAR_SPANS = 3.0
_BIN = 4  # units
_MIN_BANDWIDTH = 0.5  # bins
_HALF_OF_NORMAL = 1.349  # standard deviations that hold half of a normal distribution
_MIN_SHARE = 0.15  # of the height, so that a single sample can be seen
_DIGITS = 4


@attrs.frozen
class Shape:
    """The samples of a row.

    Attributes:
        name: the row's.
        path: the mirrored density of its samples.
        far: the same of samples beyond the axis, at its end.
        median_at: in percent.
        text: summary of the samples.
        flags: observations, in one or two words each.
    """

    name: str
    path: str
    far: str
    median_at: float
    text: str
    flags: tuple[str, ...]


@attrs.frozen
class Distributions:
    """All rows on one logarithmic axis.

    Attributes:
        shapes: one for each row.
        ticks: of the axis, in seconds.
    """

    shapes: tuple[Shape, ...]
    ticks: tuple[Tick, ...]


def distributions(
    results: Sequence[BackendResult], observed: Mapping[str, Sequence[Observation]]
) -> Distributions | None:
    """Draw the samples of all rows; None if there are no rows.

    Args:
        results: the rows.
        observed: observations on their samples, by row.
    """
    if not results:
        return None
    scale = Scale.around(end for row in results for end in near_range(samples_of(row)))
    return Distributions(
        tuple(_shape(row, observed.get(row.backend, ()), scale) for row in results), scale.ticks()
    )


def samples_of(row: BackendResult) -> list[float]:
    """All samples of a row in ascending order, in seconds."""
    return sorted(sample for block in row.measurement.blocks for sample in block.samples)


def near_range(ordered: Sequence[float]) -> tuple[float, float]:
    """The range of the samples without extreme outliers.

    Args:
        ordered: at least one sample, in ascending order.
    """
    low, high = middle(ordered)
    room = _FAR_SPANS * (high - low)
    return max(ordered[0], low - room), min(ordered[-1], high + room)


def middle(ordered: Sequence[float]) -> tuple[float, float]:
    """The 5th and the 95th percentile.

    Args:
        ordered: at least one sample, in ascending order.
    """
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    return low, high


def _shape(row: BackendResult, observed: Iterable[Observation], scale: Scale) -> Shape:
    ordered = samples_of(row)
    far = [sample for sample in ordered if not scale.low <= sample <= scale.high]
    near = ordered if not far else [s for s in ordered if scale.low <= s <= scale.high]
    return Shape(
        name=row.backend,
        path=_outline(near, scale),
        far=_outline(far, scale),
        median_at=scale.at(median(ordered)),
        text=_text(ordered, len(far)),
        flags=tuple(_FLAGS.get(one.code, one.code.replace("_", " ")) for one in observed),
    )


# Observations in the words of the notes, where their codes are others.
_FLAGS = {
    "warmup": "became faster",
    "slowdown": "became slower",
    "no_steady_state": "throughput fluctuated",
    "host_bound": "launch-bound",
    "host_risk": "nearly launch-bound",
    "carryover": "carry-over",
}


def _outline(samples: Sequence[float], scale: Scale) -> str:
    """The mirrored density of samples: a Gaussian around each, summed over bins."""
    if not samples:
        return ""
    places = [scale.at(sample) * WIDTH / 100 / _BIN for sample in samples]
    width = max(_MIN_BANDWIDTH, _bandwidth(places))
    counts = Counter(map(round, places))
    reach = math.ceil(3 * width)
    grid = range(max(0, min(counts) - reach), min(WIDTH // _BIN, max(counts) + reach) + 1)
    density = [
        sum(n * math.exp(-(((place - at) / width) ** 2) / 2) for at, n in counts.items())
        for place in grid
    ]
    heights = [
        HEIGHT / 2 * max(found / max(density), _MIN_SHARE * (place in counts))
        for place, found in zip(grid, density, strict=True)
    ]
    upper = [f"{n * _BIN} {HEIGHT / 2 - high:.1f}" for n, high in zip(grid, heights, strict=True)]
    lower = [f"{n * _BIN} {HEIGHT / 2 + high:.1f}" for n, high in zip(grid, heights, strict=True)]
    return f"M{'L'.join([*upper, *reversed(lower)])}z"


def _bandwidth(places: Sequence[float]) -> float:
    """Silverman's rule, with the spread of the narrowest half so that two modes stay apart."""
    half = len(places) // 2
    narrowest = min(places[n + half] - places[n] for n in range(len(places) - half))
    return 0.9 * narrowest / _HALF_OF_NORMAL * math.pow(len(places), -0.2)


def _text(ordered: Sequence[float], far: int) -> str:
    if len(ordered) == 1:
        return f"1 sample, {time_text(ordered[0], _DIGITS)}"
    low, high = middle(ordered)
    text = (
        f"median {time_text(median(ordered), _DIGITS)}, 90 % of {len(ordered):,} samples between "
        f"{time_text(low, _DIGITS)} and {time_text(high, _DIGITS)}"
    )
    if not far:
        return text
    return f"{text}; {far} beyond the axis, up to {time_text(ordered[-1], _DIGITS)}"
