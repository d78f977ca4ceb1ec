"""What is known of each configuration, and which of them can still win."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.analysis.tuning import choose
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import FAILED, FINALIST, INACCURATE, NOT_FINISHED, SLOWER, Trial
from precisionbench.statistics import Interval

_ONE = Interval(1.0, 1.0, 1.0)
AS_FAST = 0.97  # two speeds with this ratio may be equal


class Memory(Protocol):
    """What earlier runs have found, and where this one's findings are kept."""

    def known(self, spec: str) -> Trial | None:
        """What became of a configuration in an earlier run; None where it has to be tried."""
        ...

    def keep(self, trial: Trial) -> None:
        """Keep what became of a configuration."""
        ...


@attrs.define
class Race:
    """The configurations of a search.

    Attributes:
        reference: spec of the row that speed-ups are over; it stays until the end.
        memory: of earlier runs.
        close: ends the processes of a configuration that is not needed any more.
        takes_part: whether a configuration can be tried in this search.
        trials: what became of each configuration, in the order in which they were tried.
        speeds: speed-ups over the reference, of all that were timed.
        racing: specs that can still win, and the reference.
        leader: spec of the fastest accurate configuration.
        data: the last rounds in which the leader and the reference were measured.
    """

    reference: str
    memory: Memory
    close: Callable[[Sequence[str]], object]
    takes_part: Callable[[str], bool] = lambda _: True
    trials: dict[str, Trial] = attrs.field(factory=dict, init=False)
    speeds: dict[str, Interval] = attrs.field(factory=dict, init=False)
    racing: list[str] = attrs.field(init=False)
    leader: str = attrs.field(init=False)
    data: ComparisonData | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.leader = self.reference
        self.racing = [self.reference]

    @property
    def choice(self) -> tuple[str, str]:
        """The configuration to choose by the last rounds, and why; see `choose`."""
        assert self.data is not None  # there were rounds
        trials = self.trials.items()
        return choose(self.data, [spec for spec, one in trials if one.outcome == FINALIST])

    @property
    def others(self) -> list[str]:
        """Specs that can still win besides the reference, the fastest first."""
        others = [spec for spec in self.racing if spec != self.reference]
        return sorted(others, key=lambda spec: -self.speed(spec).value)

    def speed(self, spec: str) -> Interval:
        """The speed-up of a configuration over the reference; 1 where it was not timed."""
        return self.speeds.get(spec, _ONE)

    def is_decided(self, spec: str) -> bool:
        """Whether a configuration was tried, now or in an earlier run."""
        if spec in self.trials:
            return True
        known = self._decided_before(spec)
        if known is None:
            return False
        self.trials[spec] = attrs.evolve(known, from_journal=True)
        if known.speedup is not None:
            self.speeds[spec] = known.speedup
        return True

    def is_known(self, spec: str) -> bool:
        """Whether an earlier run has decided a configuration."""
        return self._decided_before(spec) is not None

    def _decided_before(self, spec: str) -> Trial | None:
        known = self.memory.known(spec)
        if known is None or known.outcome in (FINALIST, NOT_FINISHED):
            return None
        lost = known.outcome == SLOWER and not self._is_rival(known.slower_than)
        return None if lost else known

    def _is_rival(self, spec: str) -> bool:
        """Whether what an earlier run found to be faster takes part, and has not changed since."""
        if spec == self.reference:
            return True
        known = self.trials.get(spec) or self.memory.known(spec)
        is_out = known is None or known.outcome in (INACCURATE, FAILED)
        return not is_out and (spec in self.trials or self.takes_part(spec))

    def fastest_of(self, specs: Sequence[str]) -> str:
        """The first that is about as fast as any accurate one; empty where none was timed."""
        timed = [spec for spec in specs if spec in self.speeds]
        accurate = [spec for spec in timed if self.trials[spec].outcome in (FINALIST, SLOWER)]
        most = max((self.speeds[spec].value for spec in accurate), default=0.0)
        return next((one for one in accurate if self.speeds[one].value >= AS_FAST * most), "")

    def take(self, data: ComparisonData) -> None:
        """Drop what is slower than the fastest of these rounds, and of earlier ones.

        Args:
            data: rounds with the reference.
        """
        rows = [row.backend for row in data.results if row.backend in self.racing]
        self.speeds |= {spec: per_item_ratio(data, self.reference, spec) for spec in rows}
        able = [spec for spec in rows if self.trials[spec].outcome != INACCURATE] or rows
        self.data, self.leader = data, max(able, key=lambda spec: self.speeds[spec].value)
        for spec in rows:
            self._keep_or_drop(spec, per_item_ratio(data, self.leader, spec))
        leader = self.speeds[self.leader]
        for spec in [one for one in self.racing if one not in rows]:
            own = self.speeds[spec]
            self._keep_or_drop(spec, Interval(own.value / leader.value, 0.0, own.high / leader.low))

    def _keep_or_drop(self, spec: str, over_leader: Interval) -> None:
        """Drop a row whose speed cannot reach the leader's; the reference stays in all rounds."""
        trial = attrs.evolve(self.trials[spec], speedup=self.speeds[spec], measured_in="screening")
        if spec == self.reference or over_leader.high >= 1:
            self.keep(trial)
            return
        reason = f"{over_leader.value:.2f}x the speed of {self.leader}"
        self.drop(attrs.evolve(trial, outcome=SLOWER, reason=reason, slower_than=self.leader))

    def fastest(self, count: int, reason: str) -> list[str]:
        """The fastest of `others`; what is beyond them is dropped.

        Args:
            count: how many stay.
            reason: of the others.
        """
        found = self.others
        for spec in found[count:]:
            trial = attrs.evolve(self.trials[spec], slower_than=self.leader)
            self.drop(attrs.evolve(trial, outcome=SLOWER, reason=reason))
        return found[:count]

    def keep(self, trial: Trial) -> None:
        """Keep what became of a configuration."""
        self.trials[trial.spec] = trial
        self.memory.keep(trial)

    def drop(self, trial: Trial) -> None:
        """Keep what became of a configuration that is not tried any further, and end it."""
        self.keep(trial)
        if trial.spec in self.racing:
            self.racing.remove(trial.spec)
        self.close([trial.spec])

    def give_up(self, spec: str, reason: str) -> None:
        """Keep that there was no time for a configuration."""
        self.keep(Trial(spec, NOT_FINISHED, reason))
