"""A machine with known speeds, errors and build times, on which a search runs without waiting."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from made_up_results import comparison_data
from precisionbench.errors import (
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    SlowCallError,
    WorkerError,
)
from precisionbench.measure.open_rows import LateError
from precisionbench.measure.options import Options
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    Block,
    ComparisonData,
    Measurement,
    Preparation,
)
from precisionbench.results.tuning import BEYOND, WITHIN, Accuracy, Trial
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.bench import Judged

BATCH_SIZE = 4
INPUTS = 4  # with which a configuration is judged
LEAST_CALLS = 6  # of each process, however small the budget is
# Calls until a row that is beyond its limit is ended, and until another one can be measured.
FIRST_CALLS, OPENING_CALLS = 4, 12


@attrs.frozen
class Simulated:
    """The truth of one configuration.

    Attributes:
        latency_s: of a call.
        error: relative L2 error.
        build_s: seconds that preparing takes.
        memory: of one process, in any unit.
        failure: why it cannot be prepared; empty where it can.
        signal: number of the signal that ends its process while it builds; 0 for none.
        fails_when_timed: whether its process ends in the first rounds.
        first_calls_s: of each of the first calls, where other processes delay them.
    """

    latency_s: float
    error: float = 1e-4
    build_s: float = 1.0
    memory: float = 1.0
    failure: str = ""
    signal: int = 0
    fails_when_timed: bool = False
    first_calls_s: float | None = None


def _slow_call(call_s: float, limit: WarmCallLimit | None) -> SlowCallError | None:
    try:
        if limit is not None:
            limit.check(call_s)
    except SlowCallError as exc:
        return exc
    return None


@attrs.define
class SimulatedBench:
    """See `Bench`; its clock goes on by what each step would take.

    Attributes:
        truths: of each configuration; others are as fast as `eager`.
        limit: the largest error.
        slots: as for `Bench`.
        ahead: as for `Bench`.
        judges: as for `Bench`.
        start_s: as for `Bench`.
        begun: when the build of each configuration began that goes on, or is not taken yet.
        begins: every configuration whose build began, in order.
        begun_s: when the build of each began for the first time.
        built_beside: configurations that were being built in each measurement.
        observed: configurations whose layers were compared with float64.
        noise: relative standard deviation of a block's level.
        process_noise: relative standard deviation of a process's level, which it keeps.
        memory: of the device, in the unit of `Simulated.memory`.
        judging_s: seconds that judging a configuration takes.
        seed: of the noise.
        clock_s: the time.
        opened: how many processes of each configuration were prepared.
        timed: configurations in the order in which they were first timed.
        open_now: the level of each process that runs.
        interrupt_at: the user ends the run in this measurement, from 1.
        unfinished: configurations without a round where the user ends the run.
        most_processes: of each configuration that are of use.
        options: of each measurement.
        layers: those that add most error, of each configuration.
        layers_s: seconds that it takes to find them.
        unsteady: configurations that compute something else after the last rounds.
        rechecked: those that were judged once more, in order.
    """

    truths: Mapping[str, Simulated]
    limit: float = 1e-2
    slots: int = 2
    ahead: int = 0
    judges: int = 1
    start_s: float = 3.0
    begun: dict[str, float] = attrs.field(factory=dict)
    begins: list[str] = attrs.field(factory=list)
    begun_s: dict[str, float] = attrs.field(factory=dict)
    built_beside: list[set[str]] = attrs.field(factory=list)
    observed: list[str] = attrs.field(factory=list)
    noise: float = 0.002
    process_noise: float = 0.0
    memory: float = math.inf
    judging_s: float = 0.0
    seed: int = 0
    clock_s: float = 0.0
    opened: dict[str, int] = attrs.field(factory=dict)
    timed: list[str] = attrs.field(factory=list)
    open_now: dict[str, list[float]] = attrs.field(factory=dict)
    interrupt_at: int = 0
    unfinished: Sequence[str] = ()
    most_processes: int = 2
    options: list[Options] = attrs.field(factory=list)
    layers: Sequence[str] = ()
    layers_s: float = 0.0
    unsteady: Sequence[str] = ()
    rechecked: list[str] = attrs.field(factory=list)
    _measured: int = 0
    _rng: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def now(self) -> float:
        return self.clock_s

    def truth(self, spec: str) -> Simulated:
        """Of a configuration; at another batch size an item takes as long where none is given."""
        known = self.truths.get(spec)
        name, options = split_spec(spec)
        size = options.pop("batch_size", None) if known is None else None
        if size is None:
            return known or Simulated(10e-3)
        given = self.truth(spec_text(name, options))
        return attrs.evolve(given, latency_s=given.latency_s * int(size) / BATCH_SIZE)

    def open(
        self,
        specs: Sequence[str],
        end_s: float,
        limits: Mapping[str, WarmCallLimit] = MappingProxyType({}),
    ) -> dict[str, PrecisionBenchError]:
        errors: dict[str, PrecisionBenchError] = {}
        begun_s = self.clock_s
        for spec in specs:
            self.opened[spec] = self.opened.get(spec, 0) + 1
            slow = _slow_call(self.truth(spec).latency_s, limits.get(spec))
            calls_s = self.truth(spec).latency_s * (FIRST_CALLS if slow else OPENING_CALLS)
            ready_s = self.begun.pop(spec, begun_s) + self.truth(spec).build_s + calls_s
            if error := self._error(spec, is_late=ready_s > end_s) or slow:
                errors[spec] = error
            else:
                level = self._rng.gauss(1.0, self.process_noise)
                self.open_now.setdefault(spec, []).append(level)
            self.clock_s = max(self.clock_s, min(ready_s, end_s))
        return errors

    def build_ahead(self, specs: Sequence[str], limits: Mapping[str, WarmCallLimit]) -> None:
        building = [spec for spec in self.begun if not self.is_built(spec)]
        assert len(building) + len(specs) <= self.ahead
        assert limits.keys() in (set(), {*specs})
        self.begun |= dict.fromkeys(specs, self.clock_s)
        self.begins += specs
        self.begun_s = dict.fromkeys(specs, self.clock_s) | self.begun_s

    def is_built(self, spec: str) -> bool:
        return self.begun[spec] + self.truth(spec).build_s <= self.clock_s

    def wait_built(self, end_s: float) -> None:
        ready_s = min(begun_s + self.truth(spec).build_s for spec, begun_s in self.begun.items())
        self.clock_s = max(self.clock_s, min(ready_s, end_s))

    def _error(self, spec: str, is_late: bool) -> PrecisionBenchError | None:
        """Why a process cannot be prepared beside those that run."""
        truth = self.truth(spec)
        taken = sum(self.truth(one).memory * len(few) for one, few in self.open_now.items())
        taken += sum(self.truth(one).memory for one in self.begun)
        if truth.failure:
            return PreparationError(truth.failure, "change it")
        if is_late:
            return LateError("it was not built when the time was over", "wait")
        if truth.signal:
            return WorkerError(f"its worker process was ended by signal {truth.signal}", "see why")
        if taken + truth.memory > self.memory:
            return OutOfMemoryError("it does not fit in memory", "use a smaller batch")
        return None

    def processes(self, spec: str) -> int:
        return len(self.open_now.get(spec, ()))

    def recheck(self, spec: str) -> Accuracy | None:
        self.rechecked.append(spec)
        self.clock_s += self.judging_s * self.processes(spec) / INPUTS
        if spec not in self.unsteady:
            return None
        return Accuracy(Interval(0.3, 0.3, 0.3), BEYOND, "it computes something else now")

    def has_room_for_more(self, specs: Sequence[str]) -> bool:
        return all(self.processes(spec) < self.most_processes for spec in specs)

    def build_s(self, spec: str) -> float:
        return self.truth(spec).build_s

    def call_s(self, spec: str) -> float:
        return self.truth(spec).first_calls_s or self.truth(spec).latency_s

    def item_s(self, spec: str) -> float:
        return self.call_s(spec) / int(split_spec(spec)[1].get("batch_size", BATCH_SIZE))

    def accuracy(self, spec: str) -> Accuracy:
        self.clock_s += self.judging_s
        error = self.truth(spec).error
        loss = Interval(error, error, error * 1.05)
        return Accuracy(loss, WITHIN if loss.high <= self.limit else BEYOND)

    def accuracies(self, specs: Sequence[str]) -> Judged:
        begun_s = self.clock_s
        for number, spec in enumerate(specs):
            turn = number // self.judges  # those of a turn are judged side by side
            self.clock_s = begun_s + turn * self.judging_s
            yield self.accuracy(spec)

    def worst_layers(self, spec: str, limit_s: float) -> Sequence[str] | None:
        self.observed.append(spec)
        self.clock_s += min(self.layers_s, limit_s)
        return self.layers if self.layers_s <= limit_s else None

    def measure(self, specs: Sequence[str], options: Options) -> ComparisonData:
        self._measured += 1
        self.options.append(options)
        self.built_beside.append({spec for spec in self.begun if not self.is_built(spec)})
        interrupted = self._measured == self.interrupt_at
        self.timed += [spec for spec in specs if spec not in self.timed]
        calls_s = sum(self.truth(s).latency_s * len(self.open_now[s]) for s in specs)
        self.clock_s += max(options.budget_s or 0.0, LEAST_CALLS * calls_s)
        failed = [spec for spec in specs if self.truth(spec).fails_when_timed]
        failed += [spec for spec in specs if interrupted and spec in self.unfinished]
        self.close(failed)
        rows = [self._row(spec, interrupted) for spec in specs if spec not in failed]
        failures = [
            BackendFailure(spec, split_spec(spec)[0], {}, "WorkerError", "its process died", "")
            for spec in failed
        ]
        return comparison_data(
            reference=specs[0],
            schedule="rounds",
            launcher="process",
            results=tuple(rows),
            failures=tuple(failures),
            noise_floor=options.noise_floor or 0.0,
        )

    def _row(self, spec: str, interrupted: bool) -> BackendResult:
        levels = self.open_now[spec]
        blocks = tuple(
            Block(round_, 0, replica, (level * self._latency_s(spec),) * 3)
            for round_ in range(6)
            for replica, level in enumerate(levels)
        )
        ended_by = "interrupted" if interrupted else "target"
        preparations = tuple(Preparation(1.0, 0.1, 3, i) for i in range(len(levels)))
        measured = Measurement("wall", 1e-7, 1, preparations, blocks, ended_by)
        name, options = split_spec(spec)
        batch_size = int(options.get("batch_size", BATCH_SIZE))
        return BackendResult(spec, name, dict(options), batch_size, measured, None)

    def _latency_s(self, spec: str) -> float:
        return self.truth(spec).latency_s * self._rng.gauss(1.0, self.noise)

    def close(self, specs: Sequence[str]) -> None:
        for spec in specs:
            self.begun.pop(spec, None)
            self.open_now.pop(spec, None)


@attrs.define
class SimulatedMemory:
    """See `Memory`.

    Attributes:
        trials: of earlier runs.
        kept: of this one, in the order in which they were kept.
    """

    trials: dict[str, Trial] = attrs.field(factory=dict)
    kept: list[Trial] = attrs.field(factory=list)

    def known(self, spec: str) -> Trial | None:
        return self.trials.get(spec)

    def keep(self, trial: Trial) -> None:
        self.kept.append(trial)
