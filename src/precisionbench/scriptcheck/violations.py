"""The result of checking a script: frozen data."""

from __future__ import annotations

import attrs

from precisionbench.diagnosis.findings import FindingStatus, Number
from precisionbench.display import Shown
from precisionbench.scriptcheck.events import Ending, Place

PAGE = "docs/checking-a-script.md"


@attrs.frozen(repr=False)
class Location(Shown):
    """A line of the script that violates a rule.

    Attributes:
        place: the line of the script.
        says: what was observed there.
    """

    place: Place
    says: str


@attrs.frozen(repr=False)
class Violation(Shown):
    """A validity rule that a script violates.

    Attributes:
        gate: name of the rule.
        number: of the rule in the list of causes; empty if it has none.
        title: what is wrong, in a few words.
        status: `confirmed` if the run showed it, `suspected` if only the source says so or the
            script may have dealt with it.
        evidence: the measured numbers.
        sights: the lines of the script, in order.
        remedy: what to do, in a sentence.
        reason: why it is only suspected; empty if it is confirmed.
    """

    gate: str
    number: str
    title: str
    status: FindingStatus
    evidence: tuple[Number, ...]
    sights: tuple[Location, ...]
    remedy: str
    reason: str = ""

    @property
    def link(self) -> str:
        """The section of the documentation that explains the rule."""
        return f"{PAGE}#{self.gate}"


@attrs.frozen(repr=False)
class TimedModel(Shown):
    """A model that the script timed between two lines.

    Attributes:
        place: the line of the second reading.
        model: classes of the models called.
        parameters: dtypes of their parameters.
        outputs: dtypes of their outputs.
        timings: number of timed regions between these lines.
        calls: number of calls in all of them.
        read_s: seconds in total, as the script read them.
        device_s: seconds that the device needed; None if unknown.
        model_share: share of the calls in the time read; None if unknown.
        other_work: work in the timing that is not the model, with its share.
    """

    place: Place
    model: str
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    timings: int
    calls: int
    read_s: float
    device_s: float | None
    model_share: float | None = None
    other_work: tuple[Number, ...] = ()


@attrs.frozen(repr=False)
class CheckData(Shown):
    """The validity rules that a script violates, and what it timed.

    Attributes:
        script: its path.
        breaches: the violations, those that make numbers wrong first.
        timed: what it timed.
        models: number of models it called; a model that changes its precision counts again.
        ending: how it ended.
        gpu: name of the GPU that it used; empty if it used none.
        torch: torch's version; empty if it never imported torch.
        notes: limits and overhead of the check itself.
    """

    script: str
    breaches: tuple[Violation, ...]
    timed: tuple[TimedModel, ...]
    models: int
    ending: Ending
    gpu: str = ""
    torch: str = ""
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Violation, ...]:
        """The confirmed violations."""
        return tuple(b for b in self.breaches if b.status is FindingStatus.CONFIRMED)
