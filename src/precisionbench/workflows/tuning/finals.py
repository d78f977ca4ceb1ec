"""The end of a search: the finalists are prepared once more, and measured undisturbed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.errors import OutOfMemoryError, PrecisionBenchError
from precisionbench.measure.open_rows import LateError
from precisionbench.measure.options import Options
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import FAILED
from precisionbench.workflows.tuning.bench import Bench
from precisionbench.workflows.tuning.race import Race
from precisionbench.workflows.tuning.screening import LEAST_CALLS, Screening, was_interrupted

MOST_FINALISTS = 3
# Of more, so many are prepared a second time and measured for longer, before the finalists are.
_MOST_NARROWED = 6
_NARROWING_S = 1.5  # of rounds for each row when few are left
_FINAL_S = 3.0  # of the last rounds for each row, for which time is kept
# What is measured of each row after them: energy for the front, the others for its notes.
_PASSES, _PASSES_S = ("energy", "device", "wall"), 1.0
_MOST_FINAL_S = 10.0  # of them, where time is left
_CLOSE = 0.9  # a configuration with this share of the leader's speed may be as fast
_MOST_TIMES = 2.0  # as long as expected may a further process take
_LEAST_S = 2.0
# What is chosen is judged once more after the last rounds, with one of the inputs in each process:
# in a share of the time that judging took, and of the time that is left.
_RECHECK_SHARE, _MOST_RECHECK_SHARE = 0.5, 0.5
# Shares of the budget that are kept for the end: for its rounds, and to build finalists again.
_MOST_ROUNDS_SHARE, _MOST_BUILD_SHARE = 0.3, 0.25
_AGAIN = 0.7  # a build takes this share of the first one where its code is cached


@attrs.define
class Finals:
    """The end of one search.

    Attributes:
        bench: prepares and times.
        race: what is known of each configuration.
        screening: measures, and drops what fails.
        end_s: when the search has to end, by `now`.
        budget_s: seconds that it has in all.
        now: a clock, in seconds.
        passes: measure memory and energy, too.
        notes: what qualifies the result.
        has_dropped_best: whether what would have been chosen was not accurate any more.
    """

    bench: Bench
    race: Race
    screening: Screening
    end_s: float
    budget_s: float
    now: Callable[[], float]
    passes: bool
    notes: list[str] = attrs.field(factory=list, init=False)
    has_dropped_best: bool = attrs.field(default=False, init=False)

    def left_s(self, finalists: int = MOST_FINALISTS, again: bool = True) -> float:
        """Seconds until the end begins.

        Little is kept for it until there is something to measure beside the reference.

        Args:
            finalists: for how many, besides the reference, time of the rounds is kept at most.
            again: keep time to prepare them once more; else there are rounds of one process each.
        """
        needed_s = self._needed_s(finalists, again) if self.race.others else _LEAST_S
        return self.end_s - needed_s - self.now()

    def _needed_s(self, finalists: int, again: bool) -> float:
        rows = min(len(self.race.racing) + 1, 1 + finalists)  # one more may be found
        rounds_s = min(self._row_s * rows, _MOST_ROUNDS_SHARE * self.budget_s)
        rounds_s = max(rounds_s, self._round_s([self.race.reference, self.race.leader]))
        if not again:
            return rounds_s
        builds_s = self.again_s(self._longest_build_s(self.race.racing))
        return rounds_s + self.bench.start_s + builds_s

    @property
    def _row_s(self) -> float:
        """Seconds for each row of the last rounds, and for what is measured of it after them."""
        return _FINAL_S + (_PASSES_S if self.passes else 0.0)

    def again_s(self, build_s: float) -> float:
        """Seconds to keep for building the finalists once more.

        Args:
            build_s: of the longest of their builds.
        """
        return min(_AGAIN * build_s, _MOST_BUILD_SHARE * self.budget_s)

    def _longest_build_s(self, specs: Iterable[str]) -> float:
        return max((self.race.trials[spec].build_s or 0.0 for spec in specs), default=0.0)

    def _round_s(self, specs: Iterable[str], processes: int = 2) -> float:
        """About how many seconds the first round takes, with this number of processes of each."""
        open_now = [spec for spec in specs if self.bench.processes(spec)]
        return processes * LEAST_CALLS * sum(self.bench.call_s(spec) for spec in open_now)

    def run(self) -> None:
        """Measure the fastest in two or more processes each; nothing must be built meanwhile.

        Raises:
            KeyboardInterrupt: the user has ended it before the reference had a round.
            PrecisionBenchError: the reference failed.
        """
        self._narrow()
        count = self._most_finalists()
        reason = f"not among the {count} fastest of the screening"
        finalists = [self.race.reference, *self.race.fastest(count, reason)]
        self.screening.tell("starting further processes of the finalists")
        left_s = self.end_s - self.now()
        rounds_s = max(self._round_s(finalists), min(self._row_s, left_s / 2))
        # One whose further process is not ready in time is measured in the one that it has.
        end_s = self.now() if left_s <= self.bench.start_s else self.end_s - rounds_s
        for spec, why in self._open_finalists(finalists, end_s).items():
            reason = f"it could not be prepared again for the final rounds ({why})"
            trial = self.race.trials[spec]
            self.race.drop(attrs.evolve(trial, outcome=FAILED, reason=reason))
        able = [spec for spec in finalists if self.bench.processes(spec)]
        self._open_further(able)
        self._measure(able)
        self._recheck()

    def _narrow(self) -> None:
        """Measure the fastest in two processes, where these are more than finalists can be."""
        if len(self.race.others) <= MOST_FINALISTS:
            return
        reason = f"not among the {_MOST_NARROWED} fastest of the screening"
        specs = self.race.fastest(_MOST_NARROWED, reason)
        left_s = self.left_s() - 2 * _NARROWING_S * len(specs)
        if left_s > self.bench.start_s + self._longest_build_s(specs):
            self._open_twice(specs, self.now() + left_s)
        if self.left_s() > _NARROWING_S * len(specs):
            able = [spec for spec in specs if self.bench.processes(spec)]
            self.race.take(self.screening.rounds([self.race.reference, *able], _NARROWING_S))

    def _most_finalists(self) -> int:
        """How many configurations have a round before the end, each in two processes."""
        count = 1
        for others in itertools.accumulate([one] for one in self.race.others[:MOST_FINALISTS]):
            if self._round_s([self.race.reference, *others]) <= self.end_s - self.now():
                count = len(others)
        return count

    def _open_finalists(self, finalists: Sequence[str], end_s: float) -> dict[str, str]:
        """Prepare two processes of each finalist, or three; gives why some have none."""
        slow = self._to_build_ahead(finalists) if self.now() < end_s else []
        if not slow:
            return self._open_twice(finalists, end_s)
        self.bench.build_ahead(slow, {})
        built_s = self.now() + self._once_more_s(slow)
        quick = [spec for spec in finalists if spec not in slow]
        errors = self._open_twice(quick, end_s)
        rivals = [spec for spec in self._rivals(finalists) if spec in quick]
        self._open_more(rivals, finalists, built_s, beside=slow)
        late = self.bench.open(slow, end_s)  # which ends what is not ready then
        self._note_failures(late)
        return errors | self._without_process(late)

    def _to_build_ahead(self, finalists: Sequence[str]) -> list[str]:
        """Those that build long, where several that build fast may be the fastest meanwhile."""
        if not all(map(self.bench.processes, finalists)):  # memory is scarce
            return []
        alone = [spec for spec in finalists if self.bench.processes(spec) == 1]
        slow = [s for s in alone if _AGAIN * self._longest_build_s([s]) > self.bench.start_s]
        quick = [spec for spec in self._rivals(finalists) if spec not in slow]
        has_rival = any(spec != self.race.reference for spec in quick)
        return slow if has_rival and len(slow) <= self.bench.ahead else []

    def _open_twice(self, specs: Sequence[str], end_s: float) -> dict[str, str]:
        """Prepare two processes of each configuration; gives why some have none."""
        errors: dict[str, PrecisionBenchError] = {}
        is_late = self.now() >= end_s  # to start a further process and end it at once takes time
        for count in (1,) if is_late else (1, 2):
            lacking = [spec for spec in specs if self.bench.processes(spec) < count]
            if lacking:
                errors |= self.bench.open(lacking, end_s)
        self._note_failures(errors)
        return self._without_process(errors)

    def _without_process(self, errors: Mapping[str, PrecisionBenchError]) -> dict[str, str]:
        """Why configurations have no process, of those that failed to get one more."""
        failed = (spec for spec in errors if not self.bench.processes(spec))
        return {spec: errors[spec].reason for spec in failed}

    def _note_failures(self, errors: Mapping[str, PrecisionBenchError]) -> None:
        """Note which configurations failed to get one more process, and have another one."""
        self.notes += [
            f"{spec} was measured without one of its processes, which failed: {error}"
            for spec, error in errors.items()
            if self.bench.processes(spec) and not isinstance(error, (LateError, OutOfMemoryError))
        ]

    def _open_further(self, finalists: Sequence[str]) -> None:
        """Prepare third processes of those that have two, where several may be the fastest."""
        count = min(map(self.bench.processes, finalists))
        if count > 1:  # else there was no time or no room for the second ones
            rivals = self._rivals(finalists)
            self._open_more([s for s in rivals if self.bench.processes(s) == count], finalists)

    def _open_more(
        self,
        specs: Sequence[str],
        finalists: Sequence[str],
        until_s: float = math.inf,
        beside: Sequence[str] = (),
    ) -> None:
        """Prepare one more process of each, for narrower intervals, if there is time and room.

        Args:
            specs: finalists.
            finalists: all that are measured in the last rounds.
            until_s: when they have to be ready.
            beside: what is being prepared meanwhile.
        """
        if not specs or min(map(self.bench.processes, specs)) < 2:
            return
        build_s = self._once_more_s(specs)
        processes = 1 + max(map(self.bench.processes, finalists))
        rounds_s = max(self._row_s * len(finalists), self._round_s(finalists, processes))
        end_s = min(until_s, self.end_s - rounds_s)
        if self.now() + build_s <= end_s and self.bench.has_room_for_more([*specs, *beside]):
            end_s = min(end_s, self.now() + _MOST_TIMES * build_s)
            self._note_failures(self.bench.open(specs, end_s))

    def _rivals(self, specs: Iterable[str]) -> list[str]:
        """The reference and those that may be the fastest; none where this is one at most."""
        fast = _CLOSE * self.race.speed(self.race.leader).value
        others = [spec for spec in specs if spec != self.race.reference]
        close = [spec for spec in others if self.race.speed(spec).value >= fast]
        return [self.race.reference, *close] if len(close) > 1 else []

    def _once_more_s(self, specs: Iterable[str]) -> float:
        """About how many seconds one more process of each takes, side by side."""
        return self.bench.start_s + _AGAIN * self._longest_build_s(specs)

    def _measure(self, finalists: Sequence[str]) -> None:
        left_s = self.end_s - self.now()
        left_s -= min(_RECHECK_SHARE * self.screening.judging_s, _MOST_RECHECK_SHARE * left_s)
        left_s = max(1.0, min(left_s, _MOST_FINAL_S * len(finalists)))
        passes = _PASSES if self.passes else False
        options = Options(replicas=2, evidence=False, passes=passes, budget_s=left_s, ranked=True)
        data = self.screening.measured(finalists, options)
        if not was_interrupted(data) or _is_enough(data, finalists) or not self.race.data:
            self._keep(data)
        if was_interrupted(data):
            raise KeyboardInterrupt

    def _recheck(self) -> None:
        """Drop what would be chosen, and does not compute any more what it was judged by."""
        while (best := self.race.choice[0]) != self.race.reference:
            self.screening.tell(f"judging {best} again")
            if self.screening.is_still_accurate(best):
                return
            self.has_dropped_best = True

    def _keep(self, data: ComparisonData) -> None:
        self.race.data = data
        for row in data.results:
            speed = per_item_ratio(data, self.race.reference, row.backend)
            trial = self.race.trials[row.backend]
            self.race.keep(attrs.evolve(trial, speedup=speed, measured_in="final"))


def _is_enough(data: ComparisonData, finalists: Collection[str]) -> bool:
    """Whether rounds that the user has ended say more than those of the screening."""
    measured = {row.backend: row.measurement for row in data.results}
    return measured.keys() == {*finalists} and all(
        len(one.preparations) > 1 and len(one.rounds) > 1 for one in measured.values()
    )
