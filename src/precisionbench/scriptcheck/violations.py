"""What a check of a script is made of: frozen data."""

from __future__ import annotations

import attrs

from precisionbench.diagnosis.findings import Number, Status
from precisionbench.scriptcheck.events import Ending, Place

PAGE = "docs/checking-a-script.md"


@attrs.frozen
class Location:
    """Where a gate was seen to be broken.

    Attributes:
        place: the line of the script.
        says: what was seen there.
    """

    place: Place
    says: str


@attrs.frozen
class Violation:
    """A validity gate that a script breaks.

    Attributes:
        gate: its name.
        number: in the catalogue of causes; empty where it is not there.
        title: what is wrong, in a few words.
        status: `confirmed` where the run showed it, `suspected` where only the text says so or the
            script may have dealt with it.
        evidence: the figures.
        sights: where, the weightiest first.
        remedy: what to do, in a sentence.
        reason: why it is not sure; empty where it is.
    """

    gate: str
    number: str
    title: str
    status: Status
    evidence: tuple[Number, ...]
    sights: tuple[Location, ...]
    remedy: str
    reason: str = ""

    @property
    def link(self) -> str:
        """The section that explains the gate."""
        return f"{PAGE}#{self.gate}"


@attrs.frozen
class TimedModel:
    """What a script timed, and what it was.

    Attributes:
        place: of the reading that ended it.
        model: its class.
        parameters: their dtypes.
        outputs: dtypes of what it gave.
        timings: how many differences of readings were taken there.
        calls: in all of them.
        read_s: seconds in all, as the script read them.
        device_s: seconds that the device took; None where not known.
    """

    place: Place
    model: str
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    timings: int
    calls: int
    read_s: float
    device_s: float | None


@attrs.frozen
class CheckData:
    """Which validity gates a script breaks.

    Attributes:
        script: its path.
        breaches: what it breaks, what makes numbers wrong first.
        timed: what it timed.
        models: how many models it called, counted anew where one changes its precision.
        ending: how it ended.
        gpu: name of the GPU that it used; empty where it used none.
        torch: torch's version; empty where it never imported torch.
        notes: what could not be seen, and what a reader must know of the check itself.
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
        """The gates that are broken for sure."""
        return tuple(b for b in self.breaches if b.status is Status.CONFIRMED)
