"""How much of a timing is the model: pure functions of timed regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import attrs

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import LOADING, Place
from precisionbench.scriptcheck.timed_regions import TimedRegion

OTHER = "operations and other code"
_MOST = 1.2  # of what was read; calls that take longer run at the same time
_CPU_CLOCKS = ("time.process_time", "time.thread_time")  # count no pauses


@attrs.frozen
class Part:
    """A part of a timing that is not the model.

    Attributes:
        kind: such as `torch.tensor()`, or `operations and other code`.
        place: the line of the script; None for other code.
        share: of the time that the script read.
    """

    kind: str
    place: Place | None
    share: float

    @property
    def is_loading(self) -> bool:
        """Whether it loads data."""
        return self.kind == LOADING

    @property
    def number(self) -> Number:
        """The share, with its name."""
        name = f"{self.kind} at {self.place}" if self.place else self.kind
        return Number(name, self.share, "share")

    def __str__(self) -> str:
        where = f" at line {self.place.line}" if self.place else ""
        return f"{self.kind}{where} {self.share:.0%}"


@attrs.frozen
class Shares:
    """What a timing consists of.

    Attributes:
        model: the share of the calls; None if unknown, as on a device that works on its own,
            or of operations, which are not timed one by one.
        parts: the rest, the largest first.
    """

    model: float | None
    parts: tuple[Part, ...]

    @property
    def rest(self) -> float:
        """The share of all that is not the model."""
        return sum(part.share for part in self.parts)

    @property
    def named(self) -> float:
        """The share of conversions, copies and pauses; data loading and other code do not count."""
        return sum(part.share for part in self.parts if part.place and not part.is_loading)


def shares(group: Sequence[TimedRegion]) -> Shares | None:
    """What the timings between two lines consist of.

    Args:
        group: the timed regions between these lines.

    Returns:
        The shares; None where they are unknown: where a backward pass is timed, a call raised, the
        clock counts the time of the processor, timings overlap, or threads call models at once.
    """
    read_s = sum(region.script_s for region in group)
    calls_s = sum(calls.total_s for region in group for calls in region.calls)
    odd = any(r.trains or r.failures or r.clock.startswith(_CPU_CLOCKS) for r in group)
    spans = [id(span) for region in group for span in region.spans]
    overlap = len(set(spans)) < len(spans)
    if odd or overlap or read_s <= 0 or calls_s > read_s * _MOST:
        return None
    work_s: dict[tuple[str, Place], float] = defaultdict(float)
    for region in group:
        for work in region.host_work:
            work_s[work.kind, work.place] += work.total_s
    parts = [Part(kind, place, s / read_s) for (kind, place), s in work_s.items()]
    unmeasured = any(not calls.total_s for region in group for calls in region.calls)
    if unmeasured or any(region.on_device for region in group):
        return Shares(None, _sorted(parts))
    model = min(1.0, calls_s / read_s)
    rest = 1 - model - sum(part.share for part in parts)
    return Shares(model, _sorted([*parts, Part(OTHER, None, max(0.0, rest))]))


def _sorted(parts: list[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: -part.share))
