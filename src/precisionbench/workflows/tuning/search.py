"""The search: try what is cheap first, drop what cannot win, measure the finalists to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Protocol

import attrs

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.backends.rungs import Stage
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.options import Options
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import (
    FAILED,
    FINALIST,
    INACCURATE,
    NOT_FINISHED,
    SLOWER,
    WITHIN,
    Accuracy,
    LeftOut,
    Trial,
)
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.bench import Bench
from precisionbench.workflows.tuning.space import Family, Space

MOST_FINALISTS = 3
# Seconds of rounds for each row: in the first rounds, when many are left, and at the end.
_SCREENING_S, _NARROWING_S, _FINAL_S = 0.6, 1.5, 3.0
_MOST_FINAL_SHARE = 0.3  # of the budget
_PROCESS_S = 3.0  # to start further processes
# One process does not show how much processes differ: this is assumed of it in the screening, so
# that nothing is dropped for less.
SCREENING_FLOOR = 0.01
# Further options are tried on a family whose fastest member is at least this fast, by the leader's.
_WORTH_REFINING = 0.8
# A row whose first calls take this many times as long as the leader's is not timed any further.
_HOPELESS = 4.0
# Until one of a family was prepared: seconds that must be left for a try. One that is not ready at
# the deadline is ended.
_LEAST_BUILD_S = {Stage.PRECISION: 0.5, Stage.COMPILER: 4.0, Stage.ENGINE: 3.0}
_CHEAP_SLOTS = 6
_MIXED_LAYERS = (1, 3)  # how many layers mixed rows keep in float32


class Memory(Protocol):
    """What earlier runs have found, and where this one's findings are kept."""

    def known(self, spec: str) -> Trial | None:
        """What became of a configuration in an earlier run; None where it has to be tried."""
        ...

    def keep(self, trial: Trial) -> None:
        """Keep what became of a configuration."""
        ...


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


@attrs.define
class Search:
    """One search.

    Attributes:
        space: what may be tried.
        bench: prepares, judges and times.
        memory: of earlier runs.
        reference: spec of the row that speed-ups are over; prepared already.
        end_s: when it has to end, by `now`.
        budget_s: seconds that it has in all.
        final_passes: measure memory and energy at the end.
        tell: called with a `Status` at each step.
        now: a clock, in seconds.
        trials: what became of each configuration, in the order in which they were tried.
        data: the last rounds in which the leader and the reference were measured.
        left_out: what was not tried because it could not win.
        ended_by: `finished`, `budget` or `interrupted`.
    """

    space: Space
    bench: Bench
    memory: Memory
    reference: str
    end_s: float
    budget_s: float
    final_passes: bool = False
    tell: Callable[[Status], object] = lambda _: None
    now: Callable[[], float] = time.monotonic
    trials: dict[str, Trial] = attrs.field(factory=dict, init=False)
    data: ComparisonData | None = attrs.field(default=None, init=False)
    left_out: list[LeftOut] = attrs.field(factory=list, init=False)
    ended_by: str = attrs.field(default="finished", init=False)
    _racing: list[str] = attrs.field(factory=list, init=False)
    _speeds: dict[str, Interval] = attrs.field(factory=dict, init=False)
    _layers: dict[str, Sequence[str]] = attrs.field(factory=dict, init=False)
    _leader: str = attrs.field(init=False)
    _total: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._leader = self.reference
        self._racing = [self.reference]
        self._total = len({self.reference, *(s for f in self.space.families for s in f.first)})

    def run(self) -> None:
        """Search until everything is decided, or the time or the user ends it.

        Raises:
            KeyboardInterrupt: a Ctrl-C before anything was measured.
            PrecisionBenchError: the reference could not be measured.
        """
        try:
            self._judge_reference()
            for is_cheap in (True, False):
                self._search([f for f in self.space.families if _is_cheap(f) is is_cheap])
            self._finish()
        except KeyboardInterrupt:
            self.ended_by = "interrupted"
            if self.data is None:
                raise

    def _judge_reference(self) -> None:
        """The reference stays in all rounds; it can only be chosen where it is accurate enough."""
        accuracy = self.bench.accuracy(self.reference)
        outcome = FINALIST if accuracy.verdict == WITHIN else INACCURATE
        build_s = self.bench.build_s(self.reference)
        reason = "" if outcome == FINALIST else accuracy.reason
        self._keep(Trial(self.reference, outcome, reason, accuracy, build_s=build_s))

    # --- stages -------------------------------------------------------------------------------

    def _search(self, families: Sequence[Family]) -> None:
        """Try what families offer, and then the further options of those that are fast."""
        first = [spec for family in families for spec in family.first]
        self._try(self._ordered(first))
        self._try(self._mixed(first))
        refined = [spec for family in families for spec in self._refined(family)]
        self._total += len([spec for spec in refined if spec not in self.trials])
        self._try(self._ordered(refined))

    def _refined(self, family: Family) -> Sequence[str]:
        """The fastest accurate configuration of a family with each further option."""
        fastest = self._fastest_of(family)
        is_worth_it = fastest and self._is_worth_refining(family, fastest)
        return family.refined(fastest) if is_worth_it else ()

    def _fastest_of(self, family: Family) -> str:
        known = [spec for spec in self._speeds if self.space.family_of(spec) is family]
        accurate = [spec for spec in known if self.trials[spec].outcome in (FINALIST, SLOWER)]
        return max(accurate, key=lambda spec: self._speeds[spec].value, default="")

    def _is_worth_refining(self, family: Family, spec: str) -> bool:
        share = self._speeds[spec].value / self._speed(self._leader).value
        if share >= _WORTH_REFINING:
            return True
        if family.then:
            further = ", ".join(family.further)
            reason = f"its fastest configuration has {share:.2f}x the speed of {self._leader}"
            self.left_out.append(LeftOut(f"{family.backend} with {further}", reason))
        return False

    def _mixed(self, specs: Iterable[str]) -> list[str]:
        """Rows that keep layers in float32, for half rows that are not accurate enough alone."""
        found: list[str] = []
        for spec in specs:
            name, options = split_spec(spec)
            trial = self.trials.get(spec)
            if name != "half" or "memory_format" in options or trial is None:
                continue
            if trial.outcome == INACCURATE and (layers := self._layers.get(spec)):
                for count in dict.fromkeys(min(count, len(layers)) for count in _MIXED_LAYERS):
                    kept = "+".join(layers[:count])
                    found.append(spec_text(name, {**options, "fp32_layers": kept}))
        self._total += len(found)
        return found

    def _ordered(self, specs: Iterable[str]) -> list[str]:
        """The specs by the gain to expect for each second of preparing them."""
        return sorted(specs, key=lambda spec: -self._expected(spec) / self._typical_build_s(spec))

    def _typical_build_s(self, spec: str) -> float:
        family = self.space.family_of(spec)
        return family.typical_build_s if family else 1.0

    def _expected(self, spec: str) -> float:
        """The largest speed of tried rows that share the dtype and the layout."""
        wanted = _traits(spec)
        known = [s.value for name, s in self._speeds.items() if _traits(name) == wanted]
        return max(known, default=1.0)

    # --- trying -------------------------------------------------------------------------------

    def _try(self, specs: Iterable[str]) -> None:
        """Prepare, judge and time configurations, as many at once as there are slots."""
        todo = [spec for spec in dict.fromkeys(specs) if not self._is_decided(spec)]
        while todo:
            count = self._slots(todo[0])
            some, todo = todo[:count], todo[count:]
            needed_s = max(self._build_s(spec) for spec in some) + _PROCESS_S
            if self._left_s() < needed_s:
                for spec in (*some, *todo):
                    self._give_up(spec, f"about {needed_s:.0f} s more would be needed")
                return
            self._try_together(some)

    def _slots(self, spec: str) -> int:
        """How many configurations like this one are prepared side by side."""
        family = self.space.family_of(spec)
        return _CHEAP_SLOTS if family and _is_cheap(family) else self.bench.slots

    def _is_decided(self, spec: str) -> bool:
        """Whether a configuration was tried, now or in an earlier run."""
        if spec in self.trials:
            return True
        known = self.memory.known(spec)
        if known is None or known.outcome in (FINALIST, NOT_FINISHED):
            return False
        self.trials[spec] = attrs.evolve(known, from_journal=True)
        if known.speedup is not None:
            self._speeds[spec] = known.speedup
        return True

    def _try_together(self, specs: Sequence[str]) -> None:
        self._tell("preparing " + ", ".join(specs))
        errors = self.bench.open(specs, self.end_s - self._final_s())
        for spec, error in errors.items():
            if self.now() >= self.end_s - self._final_s():
                self._give_up(spec, error.reason)
            else:
                self._keep(Trial(spec, FAILED, str(error)))
        ready = [spec for spec in specs if spec not in errors and self._can_win(spec)]
        accurate = [spec for spec in ready if self._is_accurate(spec)]
        if accurate:
            self._screen(accurate)

    def _can_win(self, spec: str) -> bool:
        """Whether the first calls leave a chance; else the row is neither judged nor timed."""
        times = self.bench.item_s(spec) / self.bench.item_s(self._leader)
        if times <= _HOPELESS:
            return True
        reason = f"its calls take about {times:.0f} times as long as those of {self._leader}"
        self._drop(Trial(spec, SLOWER, reason, build_s=self.bench.build_s(spec)))
        return False

    def _is_accurate(self, spec: str) -> bool:
        """Judge the outputs of an open configuration; one that breaks the bound is not timed."""
        build_s = self.bench.build_s(spec)
        try:
            accuracy = self._accuracy(spec)
        except PrecisionBenchError as exc:
            self._drop(Trial(spec, FAILED, str(exc), build_s=build_s))
            return False
        if accuracy.verdict == WITHIN:
            self.trials[spec] = Trial(spec, FINALIST, accuracy=accuracy, build_s=build_s)
            return True
        if split_spec(spec)[0] == "half":
            self._layers[spec] = self.bench.worst_layers(spec)
        self._drop(Trial(spec, INACCURATE, accuracy.reason, accuracy, build_s=build_s))
        return False

    def _accuracy(self, spec: str) -> Accuracy:
        """The accuracy; at another batch size it is that of the same row at the given one."""
        name, options = split_spec(spec)
        known = self.trials.get(
            spec_text(name, {key: options[key] for key in options if key != "batch_size"})
        )
        if "batch_size" in options and known and known.accuracy:
            return known.accuracy
        return self.bench.accuracy(spec)

    def _screen(self, new: Sequence[str]) -> None:
        """Time new configurations beside the leader, and drop what is slower."""
        specs = list(dict.fromkeys([self.reference, self._leader, *new]))
        data = self._measured(specs, _screening(len(specs), _SCREENING_S))
        self._racing += [row.backend for row in data.results if row.backend in new]
        self._race(data)

    def _narrow(self) -> None:
        """Time all that are left for longer, where these are more than the finalists can be."""
        others = [spec for spec in self._racing if spec != self.reference]
        if len(others) > MOST_FINALISTS and self._left_s() > _NARROWING_S * len(others):
            specs = [self.reference, *others]
            self._race(self._measured(specs, _screening(len(specs), _NARROWING_S)))

    def _race(self, data: ComparisonData) -> None:
        """Drop what is slower than the fastest of these rounds, and of earlier ones."""
        rows = [row.backend for row in data.results if row.backend in self._racing]
        self._speeds |= {spec: per_item_ratio(data, self.reference, spec) for spec in rows}
        able = [spec for spec in rows if self.trials[spec].outcome != INACCURATE] or rows
        self.data, self._leader = data, max(able, key=lambda spec: self._speeds[spec].value)
        for spec in rows:
            over_leader = per_item_ratio(data, self._leader, spec)
            self._keep_or_drop(spec, over_leader)
        leader = self._speeds[self._leader]
        for spec in [one for one in self._racing if one not in rows]:
            own = self._speeds[spec]
            self._keep_or_drop(spec, Interval(own.value / leader.value, 0.0, own.high / leader.low))

    def _keep_or_drop(self, spec: str, over_leader: Interval) -> None:
        """Drop a row whose speed cannot reach the leader's; the reference stays in all rounds."""
        trial = attrs.evolve(self.trials[spec], speedup=self._speeds[spec], measured_in="screening")
        if spec == self.reference or over_leader.high >= 1:
            self._keep(trial)
            return
        reason = f"{over_leader.value:.2f}x the speed of {self._leader}"
        self._drop(attrs.evolve(trial, outcome=SLOWER, reason=reason))

    def _measured(self, specs: Sequence[str], options: Options) -> ComparisonData:
        """Measure rows; those that fail are dropped.

        Raises:
            KeyboardInterrupt: the user has ended it before the reference had a round.
            PrecisionBenchError: the reference failed.
        """
        self._tell("measuring " + ", ".join(specs))
        data = self.bench.measure(specs, options)
        for failure in data.failures:
            if failure.backend == self.reference:
                raise PrecisionBenchError(
                    f"{failure.backend} could not be measured: {failure.reason}", failure.remedy
                )
            self._drop(attrs.evolve(self.trials[failure.backend], outcome=FAILED,
                                    reason=failure.reason))  # fmt: skip
        if any(row.measurement.ended_by == "interrupted" for row in data.results):
            self.data = self.data or data
            raise KeyboardInterrupt
        return data

    def _speed(self, spec: str) -> Interval:
        return self._speeds.get(spec, Interval(1.0, 1.0, 1.0))

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Measure the finalists in several processes each."""
        self._narrow()
        finalists = self._finalists()
        left_s = self.end_s - self.now()
        self._tell("starting further processes of the finalists")
        if left_s > _PROCESS_S:
            # One whose further process is not ready in time is measured in the one that it has.
            self.bench.open(finalists, self.end_s - min(_FINAL_S, left_s / 2))
        if any(trial.outcome == NOT_FINISHED for trial in self.trials.values()):
            self.ended_by = "budget"
        left_s = max(1.0, min(self.end_s - self.now(), _FINAL_S * len(finalists)))
        options = Options(replicas=2, evidence=False, passes=self.final_passes, budget_s=left_s)
        self.data = self._measured(finalists, options)
        for row in self.data.results:
            speed = per_item_ratio(self.data, self.reference, row.backend)
            self._keep(attrs.evolve(self.trials[row.backend], speedup=speed, measured_in="final"))

    def _finalists(self) -> list[str]:
        """The reference, and the fastest that are left; others are decided by the screening."""
        others = [spec for spec in self._racing if spec != self.reference]
        others.sort(key=lambda spec: -self._speed(spec).value)
        for spec in others[MOST_FINALISTS:]:
            reason = f"not among the {MOST_FINALISTS} fastest of the screening"
            self._drop(attrs.evolve(self.trials[spec], outcome=SLOWER, reason=reason))
        return [self.reference, *others[:MOST_FINALISTS]]

    def _final_s(self) -> float:
        """Seconds to keep for the end: the finalists are prepared again, and measured."""
        builds_s = [self.trials[spec].build_s or 0.0 for spec in self._racing]
        rows = min(len(self._racing) + 1, 1 + MOST_FINALISTS)  # one more may be found
        rounds_s = min(_FINAL_S * rows, _MOST_FINAL_SHARE * self.budget_s)
        return rounds_s + _PROCESS_S + max(builds_s, default=0.0)

    def _left_s(self) -> float:
        """Seconds that are left to try further configurations."""
        return self.end_s - self._final_s() - self.now()

    def _build_s(self, spec: str) -> float:
        """Seconds that preparing will take, by what others of the family took."""
        family = self.space.family_of(spec)
        stage = family.stage if family else Stage.ENGINE
        known = [
            trial.build_s
            for name, trial in self.trials.items()
            if trial.build_s and split_spec(name)[0] == split_spec(spec)[0]
        ]
        return median(known) if known else _LEAST_BUILD_S.get(stage, 1.0)

    # --- keeping ------------------------------------------------------------------------------

    def _keep(self, trial: Trial) -> None:
        self.trials[trial.spec] = trial
        self.memory.keep(trial)

    def _drop(self, trial: Trial) -> None:
        """Keep what became of a configuration that is not tried any further, and end it."""
        self._keep(trial)
        if trial.spec in self._racing:
            self._racing.remove(trial.spec)
        self.bench.close([trial.spec])

    def _give_up(self, spec: str, reason: str) -> None:
        self._keep(Trial(spec, NOT_FINISHED, reason))

    def _tell(self, step: str) -> None:
        speed = self._speeds.get(self._leader)
        left_s = max(0.0, self.end_s - self.now())
        done = len(self.trials)
        self.tell(Status(step, done, max(self._total, done), self._leader, speed, left_s))


def _is_cheap(family: Family) -> bool:
    """Whether nothing is built."""
    return family.stage < Stage.COMPILER


def _traits(spec: str) -> tuple[str, str]:
    """The dtype and the layout of a configuration, by which its speed is foreseen."""
    name, options = split_spec(spec)
    default = "float16" if name in ("half", "autocast") else "float32"
    dtype = options.get("dtype", options.get("precision", default))
    return _SAME_DTYPES.get(dtype, dtype), options.get("memory_format", "contiguous")


_SAME_DTYPES: Mapping[str, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def _screening(rows: int, row_s: float) -> Options:
    return Options.of("quick", replicas=1, budget_s=row_s * rows, noise_floor=SCREENING_FLOOR)
