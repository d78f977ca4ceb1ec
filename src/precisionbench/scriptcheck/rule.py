"""What a gate is: a rule that looks for what breaks it in what was observed and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from precisionbench.diagnosis.findings import Number, Status
from precisionbench.scriptcheck.events import Calls, Model, Observations
from precisionbench.scriptcheck.static_analysis import Text
from precisionbench.scriptcheck.timed_regions import Region
from precisionbench.scriptcheck.violations import Location, Violation


@attrs.frozen
class RuleContext:
    """What a gate may look at.

    Attributes:
        seen: what was observed.
        regions: what the script timed.
        text: what stands in it.
    """

    seen: Observations
    regions: tuple[Region, ...]
    text: Text

    def model(self, calls: Calls) -> Model:
        """The model that was called."""
        return self.seen.models[calls.model]

    @property
    def timed(self) -> Iterator[tuple[Region, Calls, Model]]:
        """Each kind of call in each timed region."""
        for region in self.regions:
            for calls in region.calls:
                yield region, calls, self.model(calls)

    @property
    def all_calls(self) -> Iterator[Calls]:
        """Timed or not."""
        for segment in self.seen.segments:
            yield from segment.calls

    @property
    def saw_a_gpu(self) -> bool:
        """Whether the script used a GPU that could be looked at."""
        return bool(self.seen.gpu) or any(
            reading.pending is not None for reading in self.seen.readings
        )


@attrs.frozen
class RuleMatch:
    """What a gate found.

    Attributes:
        numbers: the figures.
        sights: where.
        reason: why it is not sure; empty where it is.
    """

    numbers: tuple[Number, ...]
    sights: tuple[Location, ...]
    reason: str = ""


@attrs.frozen
class Rule:
    """A rule that a benchmark must keep.

    Attributes:
        name: of the gate and its section in the documentation.
        number: in the catalogue of causes; empty where it is not there.
        title: what is wrong where it is broken.
        remedy: what to do, in a sentence.
        look: gives what it found, or None.
    """

    name: str
    number: str
    title: str
    remedy: str
    look: Callable[[RuleContext], RuleMatch | None]

    def breach(self, scene: RuleContext) -> Violation | None:
        """What it has to say of a script."""
        found = self.look(scene)
        if found is None:
            return None
        status = Status.SUSPECTED if found.reason else Status.CONFIRMED
        return Violation(
            self.name,
            self.number,
            self.title,
            status,
            found.numbers,
            found.sights,
            self.remedy,
            found.reason,
        )
