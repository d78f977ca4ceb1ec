"""The first trial of configurations: prepare them side by side, judge them, time them shortly."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing

import attrs

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.analysis.variation import within_sd
from precisionbench.errors import (
    MeasurementError,
    OutOfMemoryError,
    PrecisionBenchError,
    SlowCallError,
)
from precisionbench.measure.open_rows import LateError
from precisionbench.measure.options import Options
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import (
    FAILED,
    FINALIST,
    INACCURATE,
    SLOWER,
    WITHIN,
    Accuracy,
    Trial,
)
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.workflows.tuning.bench import Bench
from precisionbench.workflows.tuning.builds import Builds
from precisionbench.workflows.tuning.estimates import Estimates
from precisionbench.workflows.tuning.race import Race

ROW_S = 0.6  # of rounds for each row
LEAST_CALLS = 6  # of each process, until the first round has ended
# A row whose first calls take this many times as long as the leader's is not timed any further,
# unless they are so short that timing it takes no longer than other rows: on a busy machine other
# processes delay a few calls by as much.
_HOPELESS = 4.0
_AS_FAST = 1.5  # a row may be as fast as one whose first calls take this many times as long
_DISTURBED = 2.0  # times as many while others are built, which tune on the same device
_LAYERS_SHARE = 0.25  # of the time that is left, to compare the layers of a row with float64
# The least difference that is assumed between processes of the same code, as a standard deviation.
LEAST_NOISE = 0.01


@attrs.define
class Screening:
    """Tries configurations for the first time.

    Attributes:
        bench: prepares, judges and times.
        race: takes what becomes of each.
        estimates: of how long they build.
        builds: what is being built meanwhile.
        now: a clock, in seconds.
        tell: called with a description of each step.
        judging_s: the most seconds that judging took, for each time that the bench judges some.
        lacks_layers: inaccurate configurations whose layers could not be compared in time.
    """

    bench: Bench
    race: Race
    estimates: Estimates
    builds: Builds
    now: Callable[[], float]
    tell: Callable[[str], object]
    judging_s: float = attrs.field(default=0.0, init=False)
    lacks_layers: list[str] = attrs.field(factory=list, init=False)
    _item_s: dict[str, float] = attrs.field(factory=dict, init=False)  # by first calls

    def needed_s(self, count: int) -> float:
        """Seconds that configurations take once they are prepared: to be judged and timed.

        Args:
            count: how many they are.
        """
        reference, leader = self.race.reference, self.race.leader
        calls_s = 2 * self.bench.call_s(reference) + (1 + count) * self.bench.call_s(leader)
        judging_s = math.ceil(count / self.bench.judges) * self.judging_s
        return judging_s + max(ROW_S * (count + 2), LEAST_CALLS * calls_s)

    def judge_reference(self) -> None:
        """Judge the reference, which stays in all rounds, and is chosen only where it is accurate.

        Raises:
            PrecisionBenchError: it fails with the inputs that configurations are judged by.
        """
        ((spec, accuracy),) = self.judged([self.race.reference])
        if isinstance(accuracy, PrecisionBenchError):
            raise accuracy
        outcome = FINALIST if accuracy.verdict == WITHIN else INACCURATE
        reason = "" if outcome == FINALIST else accuracy.reason
        build_s = self.bench.build_s(spec)
        self.race.keep(Trial(spec, outcome, reason, accuracy, build_s=build_s))

    def run(self, specs: Sequence[str], left_s: float) -> None:
        """Try configurations side by side.

        Args:
            specs: the configurations.
            left_s: seconds until it has to end.
        """
        end_s = self.now() + left_s
        for spec in self._run_together(specs, end_s):
            self._run_with_room(spec, end_s)

    def _run_together(self, specs: Sequence[str], end_s: float) -> list[str]:
        """Try configurations; gives those that did not fit in memory beside what is open."""
        left_s = end_s - self.now()
        self.tell("preparing " + ", ".join(specs))
        limit_s = self.estimates.limit_s(specs, left_s - self.needed_s(len(specs)))
        # The second process of the reference shows how much processes differ.
        lone = [self.race.reference] if self.bench.processes(self.race.reference) == 1 else []
        limits = self.call_limits(specs, len(specs) + len(lone))
        errors = self.bench.open([*specs, *lone], self.now() + limit_s, limits)
        crowded = [spec for spec in specs if isinstance(errors.get(spec), OutOfMemoryError)]
        self._keep_failures({s: e for s, e in errors.items() if s in specs and s not in crowded},
                            limit_s)  # fmt: skip
        self._judge_and_time([spec for spec in specs if spec not in errors], end_s)
        return crowded

    def _run_with_room(self, spec: str, end_s: float) -> None:
        """Try what did not fit once more, with nothing open but what rounds need.

        What else can still win is prepared again when it is measured the next time.
        """
        needed = dict.fromkeys([self.race.reference, self.race.leader])
        self.bench.close([one for one in self.race.racing if one not in needed])
        self.builds.end(self.builds.specs)
        self.tell(f"preparing {spec} again, with more memory")
        left_s = max(0.0, end_s - self.now() - self.needed_s(1))
        limit_s = self.estimates.limit_s([spec], left_s)
        errors = self.bench.open([spec], self.now() + limit_s, self.call_limits([spec], 1))
        if isinstance(error := errors.get(spec), OutOfMemoryError):
            beside = " and ".join(needed)
            reason = f"{error.reason} beside {beside}, with which it would be measured"
            self.race.keep(Trial(spec, FAILED, f"{reason}; {error.remedy}".rstrip("; ")))
            return
        self._keep_failures(errors, limit_s)
        self._judge_and_time([spec] if spec not in errors else [], end_s)

    def call_limits(self, specs: Sequence[str], together: int) -> dict[str, WarmCallLimit]:
        """How long a warm call may take: beyond it, a configuration is ended while it is opened.

        Args:
            specs: the configurations.
            together: how many are prepared side by side.
        """
        leader, given = self.race.leader, self.race.reference
        item_s = self.bench.item_s(leader)
        items = round(self.bench.call_s(given) / self.bench.item_s(given))
        sizes = {spec: int(split_spec(spec)[1].get("batch_size", items)) for spec in specs}
        return {
            spec: WarmCallLimit(leader, item_s * size, together) for spec, size in sizes.items()
        }

    def _keep_failures(self, errors: Mapping[str, PrecisionBenchError], limit_s: float) -> None:
        usual_s = {spec: self.estimates.build_s(spec) for spec in errors}
        for spec, error in errors.items():
            if isinstance(error, LateError):
                self.estimates.late[spec] = limit_s
                why = f"it was not built after {limit_s:.0f} s; {usual_s[spec]:.0f} s were expected"
                self.race.give_up(spec, why)
            elif isinstance(error, SlowCallError):
                lost_to = self.race.leader
                self.race.keep(Trial(spec, SLOWER, error.reason, slower_than=lost_to))
            else:
                self.race.keep(Trial(spec, FAILED, str(error)))

    def _judge_and_time(self, specs: Sequence[str], end_s: float) -> None:
        ready = [spec for spec in specs if self._can_win(spec)]
        if ready:
            self.tell("judging " + ", ".join(ready))
        with closing(self.judged(ready)) as judged:
            accurate = [spec for spec, found in judged if self._is_accurate(spec, found)]
        self._find_layers(ready, end_s)
        if accurate:
            self._time(accurate)

    def judged(
        self, specs: Sequence[str]
    ) -> Generator[tuple[str, Accuracy | PrecisionBenchError], None, None]:
        """The accuracy of open configurations, each as soon as it is known, or why it failed.

        Args:
            specs: the configurations.
        """
        known = {spec: found for spec in specs if (found := self._known_accuracy(spec))}
        unknown = [spec for spec in specs if spec not in known]
        begun_s = self.now()
        with closing(self.bench.accuracies(unknown)) as judged:
            for spec in specs:
                yield spec, known[spec] if spec in known else next(judged)
        if unknown:
            turns = math.ceil(len(unknown) / self.bench.judges)
            self.judging_s = max(self.judging_s, (self.now() - begun_s) / turns)

    def _can_win(self, spec: str) -> bool:
        """Whether the first calls leave a chance; else the row is neither judged nor timed."""
        leader = self.race.leader
        times = self.bench.item_s(spec) / self.bench.item_s(leader)
        disturbed = _DISTURBED if self.builds.specs else 1.0
        is_short = LEAST_CALLS * self.bench.call_s(spec) <= ROW_S
        if is_short or times <= _HOPELESS * disturbed:
            return True
        reason = f"its calls take about {times:.0f} times as long as those of {leader}"
        build_s = self.bench.build_s(spec)
        self.race.drop(Trial(spec, SLOWER, reason, build_s=build_s, slower_than=leader))
        return False

    def _is_accurate(self, spec: str, accuracy: Accuracy | PrecisionBenchError) -> bool:
        """Keep how accurate an open configuration is; one that breaks the bound is not timed."""
        build_s, self._item_s[spec] = self.bench.build_s(spec), self.bench.item_s(spec)
        if isinstance(accuracy, PrecisionBenchError):
            self.race.drop(Trial(spec, FAILED, str(accuracy), build_s=build_s))
            return False
        if accuracy.verdict == WITHIN:
            self.race.trials[spec] = Trial(spec, FINALIST, accuracy=accuracy, build_s=build_s)
            return True
        trial = Trial(spec, INACCURATE, accuracy.reason, accuracy, build_s=build_s)
        if _can_be_mixed(spec):
            self.race.trials[spec] = trial  # it is kept, and ended, once its layers are known
        else:
            self.race.drop(trial)
        return False

    def _find_layers(self, judged: Iterable[str], end_s: float) -> None:
        """Find the layers of inaccurate half rows that mixed rows keep in float32, and end them."""
        trials = (self.race.trials[spec] for spec in judged if _can_be_mixed(spec))
        inaccurate = [trial for trial in trials if trial.outcome == INACCURATE]
        for trial in inaccurate:
            if not self._has_fast_rival(trial.spec) and not self._has_better_twin(trial):
                self.builds.end_unlikely()  # they lose, whatever the layers show
                self.tell(f"comparing each layer of {trial.spec} with float64")
                limit_s = _LAYERS_SHARE * max(0.0, end_s - self.now())
                layers = self.bench.worst_layers(trial.spec, limit_s)
                if layers is None:  # a later run tries it again
                    self.lacks_layers.append(trial.spec)
                    continue
                trial = attrs.evolve(trial, error_layers=tuple(layers))
            self.race.keep(trial)
        self.bench.close([trial.spec for trial in inaccurate])

    def _has_fast_rival(self, spec: str) -> bool:
        """Whether an accurate half row is as fast, by first calls: mixed rows would add casts."""
        limit_s = (_HOPELESS if self.builds.specs else _AS_FAST) * self._item_s[spec]
        return any(
            _is_half(trial.spec)
            and trial.is_accurate
            and trial.outcome != FAILED
            and self._known_item_s(trial.spec) <= limit_s
            for trial in self.race.trials.values()
        )

    def _has_better_twin(self, trial: Trial) -> bool:
        """Whether one that is about as fast breaks the bound by less, and is mixed instead.

        Or will be by a later run, where comparing its layers took too long.
        """
        limit_s, loss = _AS_FAST * self._item_s[trial.spec], trial.loss
        return loss is not None and any(
            _can_be_mixed(other.spec)
            and (other.error_layers or other.spec in self.lacks_layers)
            and other.loss is not None
            and other.loss.value < loss.value
            and self._known_item_s(other.spec) <= limit_s
            for other in self.race.trials.values()
        )

    def _known_item_s(self, spec: str) -> float:
        """Seconds of an item, as it was timed, now or in an earlier run, or else by first calls."""
        if spec in self.race.speeds:
            return self.bench.item_s(self.race.reference) / self.race.speed(spec).value
        return self._item_s.get(spec, math.inf)

    def still_lacks_layers(self) -> bool:
        """Whether rows with layers in float32 could not be tried, and may still be the fastest."""
        for spec in [spec for spec in self.lacks_layers if self._has_fast_rival(spec)]:
            self.race.keep(self.race.trials[spec])
            self.lacks_layers.remove(spec)
        return bool(self.lacks_layers)

    def _known_accuracy(self, spec: str) -> Accuracy | None:
        """At another batch size it is that of the same row at the given one."""
        name, options = split_spec(spec)
        known = self.race.trials.get(
            spec_text(name, {key: options[key] for key in options if key != "batch_size"})
        )
        return known.accuracy if "batch_size" in options and known else None

    def _time(self, new: Sequence[str]) -> None:
        """Time new configurations beside the leader, and drop what is slower."""
        specs = list(dict.fromkeys([self.race.reference, self.race.leader, *new]))
        data = self.rounds(specs, ROW_S)
        measured = [row.backend for row in data.results if row.backend in new]
        self._drop_inaccurate_leaders(measured, data)
        self.race.racing += [s for s in measured if self.race.trials[s].outcome == FINALIST]
        self.race.take(data)

    def _drop_inaccurate_leaders(self, specs: Sequence[str], data: ComparisonData) -> None:
        """Judge the fastest again, to which others would lose, until one is as accurate as before.

        Args:
            specs: new configurations.
            data: rounds in which they were measured beside the leader.
        """
        speeds = {spec: per_item_ratio(data, self.race.leader, spec).value for spec in specs}
        for spec in sorted(specs, key=lambda spec: -speeds[spec]):
            if speeds[spec] <= 1 or self.is_still_accurate(spec):
                return

    def is_still_accurate(self, spec: str) -> bool:
        """Judge a configuration again that was timed; one that is not accurate now is dropped.

        Args:
            spec: of an open configuration.
        """
        found = self.bench.recheck(spec)
        if found is None:
            return True
        trial = self.race.trials[spec]
        if isinstance(found, PrecisionBenchError):
            reason = f"{found} (when it was judged again)"
            self.race.drop(attrs.evolve(trial, outcome=FAILED, reason=reason))
        else:
            trial = attrs.evolve(trial, outcome=INACCURATE, reason=found.reason, accuracy=found)
            self.race.drop(trial)
        return False

    def rounds(self, specs: Sequence[str], row_s: float) -> ComparisonData:
        """Measure a few rounds; what varies between them is assumed between processes, too.

        Args:
            specs: open configurations, the reference first.
            row_s: seconds for each of them.

        Raises:
            KeyboardInterrupt: the user has ended it before the reference had a round.
            PrecisionBenchError: the reference failed.
        """
        options = Options.of(
            "quick", replicas=1, budget_s=row_s * len(specs), noise_floor=LEAST_NOISE
        )
        data = self.measured(specs, options)
        if was_interrupted(data):
            self.race.data = self.race.data or data
            raise KeyboardInterrupt
        noise = within_sd([row.measurement.blocks for row in data.results])
        return attrs.evolve(data, noise_floor=max(LEAST_NOISE, noise))

    def measured(self, specs: Sequence[str], options: Options) -> ComparisonData:
        """Measure configurations; those that fail are dropped, unless the user has ended it.

        Args:
            specs: open configurations, the reference first.
            options: how to measure.

        Raises:
            KeyboardInterrupt: the user has ended it before the reference had a round.
            PrecisionBenchError: the reference failed.
        """
        self.tell("measuring " + ", ".join(specs))
        data = self.bench.measure(specs, options)
        if was_interrupted(data):
            return data
        for failure in data.failures:
            if failure.backend == self.race.reference:
                raise MeasurementError(
                    f"{failure.backend} could not be measured: {failure.reason}", failure.remedy
                )
            trial = self.race.trials[failure.backend]
            self.race.drop(attrs.evolve(trial, outcome=FAILED, reason=failure.reason))
        return data


def was_interrupted(data: ComparisonData) -> bool:
    """Whether the user has ended rounds.

    Args:
        data: what was measured in them.
    """
    return any(row.measurement.ended_by == "interrupted" for row in data.results)


def mixed(specs: Iterable[str], trials: Mapping[str, Trial]) -> list[str]:
    """Rows that keep layers in float32, for half rows that are not accurate enough alone.

    Args:
        specs: configurations, some of them half rows.
        trials: what became of each of them.
    """
    found: list[str] = []
    for spec in filter(_can_be_mixed, specs):
        name, options = split_spec(spec)
        if worst := trials[spec].error_layers:
            for count in dict.fromkeys(min(count, len(worst)) for count in _MIXED_LAYERS):
                kept = "+".join(worst[:count])
                found.append(spec_text(name, {**options, "fp32_layers": kept}))
    return found


_MIXED_LAYERS = (1, 3)  # how many layers mixed rows keep in float32


def _is_half(spec: str) -> bool:
    """Whether all layers are in a 16-bit dtype."""
    name, options = split_spec(spec)
    return name == "half" and "fp32_layers" not in options


def _can_be_mixed(spec: str) -> bool:
    """Whether mixed rows are made of a configuration that turns out to be inaccurate."""
    return _is_half(spec) and not {"memory_format", "batch_size"} & split_spec(spec)[1].keys()
