"""How far a search is, as its progress shows it."""

from __future__ import annotations

import attrs

from precisionbench.statistics import Interval


@attrs.frozen
class Status:
    """How far a search is.

    Attributes:
        step: what is done now.
        done: how many configurations are decided.
        total: how many there are, as far as is known.
        leader: spec of the fastest accurate configuration so far.
        speedup: of the leader over the reference; None before it was measured.
        remaining_s: seconds of the budget that are left.
    """

    step: str
    done: int
    total: int
    leader: str
    speedup: Interval | None
    remaining_s: float
