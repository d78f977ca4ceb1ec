"""The type of a validity rule, and the data that rules are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from precisionbench.diagnosis.findings import FindingStatus, Number
from precisionbench.report.formatting import time_text
from precisionbench.scriptcheck.events import Calls, Model, Observations
from precisionbench.scriptcheck.static_analysis import StaticFindings
from precisionbench.scriptcheck.timed_regions import TimedRegion
from precisionbench.scriptcheck.violations import Location, Violation

HALF_DTYPES = frozenset({"float16", "bfloat16"})
STATIC_ONLY = "from the script's source, not from this run"  # the reason of a static finding


@attrs.frozen
class RuleContext:
    """Everything a rule may read.

    Attributes:
        observations: what the run recorded.
        regions: the timed regions of the run.
        static: what static analysis found in the source.
        empty_regions: timings in which nothing was called.
    """

    observations: Observations
    regions: tuple[TimedRegion, ...]
    static: StaticFindings
    empty_regions: tuple[TimedRegion, ...] = ()

    def model(self, calls: Calls) -> Model:
        """The model that these calls belong to."""
        return self.observations.models[calls.model]

    @property
    def timed_calls(self) -> Iterator[tuple[TimedRegion, Calls, Model]]:
        """Each group of calls in each timed region."""
        for region in self.regions:
            for calls in region.calls:
                yield region, calls, self.model(calls)

    @property
    def all_calls(self) -> Iterator[Calls]:
        """Each group of calls, timed or not, without those that raised."""
        for span in self.observations.spans:
            yield from (calls for calls in span.calls if not calls.error)

    @property
    def gpu_observed(self) -> bool:
        """Whether the script used a GPU whose pending work could be queried."""
        return bool(self.observations.gpu) or any(
            reading.pending is not None for reading in self.observations.readings
        )


def shown_time(seconds: float) -> str:
    """A time in text, which may be 0.

    Args:
        seconds: of a clock that may be coarse.
    """
    return time_text(seconds) if seconds > 0 else "0 s"


@attrs.frozen
class RuleMatch:
    """What a rule detected.

    Attributes:
        numbers: the evidence.
        locations: the lines of the script.
        reason: why the match is only suspected; empty if it is confirmed.
    """

    numbers: tuple[Number, ...]
    locations: tuple[Location, ...]
    reason: str = ""


@attrs.frozen
class Rule:
    """A condition that a valid benchmark meets.

    Attributes:
        name: of the rule, and of its section in the documentation.
        number: in the list of causes; empty if the rule has none.
        title: what is wrong when the rule is violated.
        remedy: what to do, in a sentence.
        detect: returns a match if the rule is violated, else None.
    """

    name: str
    number: str
    title: str
    remedy: str
    detect: Callable[[RuleContext], RuleMatch | None]

    def violation(self, context: RuleContext) -> Violation | None:
        """The violation of this rule, None if the script keeps it.

        Args:
            context: what was observed and read.
        """
        match = self.detect(context)
        if match is None:
            return None
        return Violation(
            self.name,
            self.number,
            self.title,
            FindingStatus.SUSPECTED if match.reason else FindingStatus.CONFIRMED,
            match.numbers,
            match.locations,
            self.remedy,
            match.reason,
        )
