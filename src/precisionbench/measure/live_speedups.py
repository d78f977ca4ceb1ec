"""The speed-ups so far, for progress while rounds go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench.analysis.variation import MIN_INTERVAL_ROUNDS, replicas
from precisionbench.measure.schedule import RowState
from precisionbench.measure.stopping import measured_blocks, ratios_per_item
from precisionbench.results import Block
from precisionbench.statistics import Interval

# The pause between two updates is at least this many times as long as an update takes.
_PAUSE = 100.0
# One round does not yet show how blocks of a process vary.
_MIN_ROUNDS = 2


@attrs.define
class LiveSpeedups:
    """Computes the speed-ups between rounds, in 1 % of the time at most.

    Attributes:
        reference_of: the row that a row is compared with, by its name.
        noise_floor: known run-to-run standard deviation of the log on this device.
        now: a clock, in seconds.
    """

    reference_of: Callable[[str], str]
    noise_floor: float
    now: Callable[[], float] = time.perf_counter
    _latest: Mapping[str, Interval] = attrs.field(factory=dict, init=False)
    _next_s: float = attrs.field(default=0.0, init=False)
    _is_first: bool = attrs.field(default=True, init=False)

    def update(self, row_states: Sequence[RowState]) -> Mapping[str, Interval]:
        """Speed-ups by row over its reference; the latest ones where it is too early for new ones.

        Args:
            row_states: of all rows, between two rounds.
        """
        rows = measured_blocks(row_states)
        fewest = min(
            (row_state.complete_rounds for row_state in row_states if not row_state.error),
            default=0,
        )
        enough = fewest >= _rounds_to_begin(rows)
        begun_s = self.now()
        if not enough or begun_s < self._next_s:
            return self._latest
        ratios = ratios_per_item(row_states, self.reference_of, self.noise_floor)
        self._latest = {name: ratio_at(0.95) for name, ratio_at in ratios.items()}
        ended_s = self.now()
        if not self._is_first:  # the first update imports modules that later ones find loaded
            self._next_s = ended_s + _PAUSE * (ended_s - begun_s)
        self._is_first = False
        return self._latest


def _rounds_to_begin(rows: Mapping[str, Sequence[Block]]) -> int:
    """The rounds from which an interval is valid: few where each row has several processes."""
    has_replicas = all(len(replicas(blocks)) > 1 for blocks in rows.values())
    return _MIN_ROUNDS if has_replicas else MIN_INTERVAL_ROUNDS
