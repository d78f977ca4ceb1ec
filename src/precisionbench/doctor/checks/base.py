"""The type of a check of the machine."""

from __future__ import annotations

from enum import Enum

import attrs

from precisionbench.display import Shown


class State(str, Enum):
    """The result of a check."""

    GOOD = "good"
    ATTENTION = "attention"
    UNKNOWN = "unknown"


@attrs.frozen(repr=False)
class MachineCheck(Shown):
    """One check of an examination.

    Attributes:
        subject: what was checked.
        state: whether it is as it should be.
        finding: what was measured.
        remedy: what to do about it; empty if no action is needed.
    """

    subject: str
    state: State
    finding: str
    remedy: str = ""
