"""The plot of the speed-ups with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from precisionbench.report import rows
from precisionbench.report.html.scales import Scale, Tick
from precisionbench.results import ComparisonData, Speedup
from precisionbench.statistics import Verdict

_TONES = {Verdict.FASTER: "good", Verdict.SLOWER: "bad"}


@attrs.frozen
class Whisker:
    """A dot with its interval.

    Attributes:
        name: the row's.
        value: the speed-up.
        at: position of the dot in percent.
        low_at: position of the lower end.
        high_at: position of the upper end.
        text: speed-up, interval and verdict.
        tone: `good`, `bad` or `even`.
    """

    name: str
    value: float
    at: float
    low_at: float
    high_at: float
    text: str
    tone: str


@attrs.frozen
class SpeedupPlot:
    """All rows on one axis.

    Attributes:
        whiskers: of all rows but references.
        ticks: of the axis.
        one_at: position of 1.
    """

    whiskers: tuple[Whisker, ...]
    ticks: tuple[Tick, ...]
    one_at: float


def speedup_plot(data: ComparisonData, speedups: Mapping[str, Speedup]) -> SpeedupPlot | None:
    """The plot of all rows but references; None if there are none.

    Args:
        data: the comparison.
        speedups: by row.
    """
    found = {name: one for name, one in speedups.items() if not data.is_reference(name)}
    if not found:
        return None
    scale = Scale.around([1.0, *(x for one in found.values() for x in (one.low, one.high))])
    whiskers = tuple(_whisker(name, one, scale) for name, one in found.items())
    return SpeedupPlot(whiskers, scale.ticks(), scale.at(1.0))


def _whisker(name: str, found: Speedup, scale: Scale) -> Whisker:
    value, low, high = rows.ratio_texts(found)
    words = rows.verdict_words(found)
    return Whisker(
        name,
        found.value,
        scale.at(found.value),
        scale.at(found.low),
        scale.at(found.high),
        f"{value}x ({low} to {high}), {words}",
        _TONES.get(found.verdict, "even"),
    )
