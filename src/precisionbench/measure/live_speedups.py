"""The speed-ups so far, while rounds go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench.analysis.speedups import FLOOR_ROUNDS, ratio_of
from precisionbench.measure.rounds import RowState
from precisionbench.statistics import Interval

# Between two looks at least so many times as long as a look takes: it costs 1 % at most.
_PAUSE = 100.0


@attrs.define
class LiveSpeedups:
    """Looks at the speed-ups between rounds, and never for more than a hundredth of the time.

    Attributes:
        reference: name of the base.
        floor: spread between processes that is known of this device, as a log.
        now: a clock.
    """

    reference: str
    floor: float
    now: Callable[[], float] = time.perf_counter
    _found: Mapping[str, Interval] = attrs.field(factory=dict, init=False)
    _next_s: float = attrs.field(default=0.0, init=False)
    _has_looked: bool = attrs.field(default=False, init=False)

    def update(self, row_states: Sequence[RowState]) -> Mapping[str, Interval]:
        """Speed-ups over the reference by row; those of the last look where it is too early.

        Args:
            row_states: of all rows, between two rounds.
        """
        rows = {
            row_state.name: row_state.blocks for row_state in row_states if row_state.error is None
        }
        fewest = min(
            (row_state.complete_rounds for row_state in row_states if not row_state.error),
            default=0,
        )
        begun_s = self.now()
        if self.reference not in rows or fewest < FLOOR_ROUNDS or begun_s < self._next_s:
            return self._found
        self._found = {
            name: ratio_of(rows, self.reference, name, 0.95, self.floor)
            for name in rows
            if name != self.reference
        }
        ended_s = self.now()
        if self._has_looked:  # the first look imports what later ones find there
            self._next_s = ended_s + _PAUSE * (ended_s - begun_s)
        self._has_looked = True
        return self._found
