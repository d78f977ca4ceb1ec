"""Interleaved rounds over prepared backends, and when there are enough of them.

In every round each replica of each row is measured for one block, in a new random order: drift
and clock states then fall on all rows alike, which no fixed order achieves.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from precisionbench.analysis.speedups import FLOOR_ROUNDS, ratio_of, within_share
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.worker.protocol import Opening, PreparedBackend
from precisionbench.results.records import Block, Measurement, Preparation
from precisionbench.statistics import has_settled, quantile_interval
from precisionbench.system.telemetry import Unwatched, Watch

# Why these: docs/between-processes.md.
MIN_ROUNDS = 12
MAX_ROUNDS = 100
_TARGET_RATIO = 0.005  # half-width of the speed-up
_TARGET_MEDIAN = 0.01  # half-width of the latency
_CHECKS_IN_A_ROW = 2
_CHECK_EVERY = 2
# More rounds are of no use where noise within a process is this small a share of the variance.
_USELESS_SHARE = 0.1
_BLOCK_S = 0.05
_BLOCK_SAMPLES = 5
_SETTLE_S = 0.02
_SETTLE_CALLS = 2
_SETTLE_SHARE = 0.25  # of a block, at most, beyond the least
_WARMUP_S = 1.0  # for each row
_WARMUP_LIMIT_S = 10.0
_WARMUP_BLOCKS = 3
_WARMUP_SHARE = 0.25  # of the budget, at most


@attrs.define
class RowState:
    """One row while it is measured.

    Attributes:
        name: the row's name.
        replicas: its replicas.
        session: which repetition of the whole.
        samples: in a block.
        calls_per_sample: for short calls.
        settle_calls: before a block.
        warmup_calls: made so far, of each prepared.
        blocks: scored so far.
        warnings: what a reader of the row must know.
        error: what ended it early.
    """

    name: str
    replicas: list[
        Any
    ]  # of PreparedBackend; lists of remote ones are no lists of PreparedBackend to a type checker
    session: int = 0
    samples: int = 1
    calls_per_sample: int = 1
    settle_calls: int = 0
    warmup_calls: list[int] = attrs.field(factory=list)
    blocks: list[Block] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    error: PrecisionBenchError | None = None

    @property
    def call_s(self) -> float:
        """About how long a call takes."""
        return median(opening.call_s for opening in self.openings)

    @property
    def block_s(self) -> float:
        """About how long a block takes, of all replicas together."""
        calls = self.settle_calls + self.samples * self.calls_per_sample
        return calls * self.call_s * len(self.replicas)

    @property
    def complete_rounds(self) -> int:
        """Rounds in which every replica was measured."""
        return len(self.blocks) // len(self.replicas)

    @property
    def openings(self) -> list[Opening]:
        """What its replicas said of themselves."""
        return [prepared.opening for prepared in self.replicas]

    def measurement(self, ended_by: str) -> Measurement:
        """What it leaves behind.

        Args:
            ended_by: what ended the rounds; a row with an error was ended by that.
        """
        openings = self.openings
        return Measurement(
            clock=openings[0].clock,
            resolution_s=openings[0].resolution_s,
            calls_per_sample=self.calls_per_sample,
            preparations=tuple(
                Preparation(o.build_s, o.first_call_s, o.warmup_calls + calls, i, self.session)
                for i, (o, calls) in enumerate(zip(openings, self.warmup_calls, strict=True))
            ),
            blocks=tuple(self.blocks),
            ended_by="failed" if self.error else ended_by,
        )


@attrs.frozen
class RoundStatus:
    """How far the rounds are.

    Attributes:
        round: rounds finished.
        remaining_s: about how long it will take still; None before that can be told.
    """

    round: int
    remaining_s: float | None


@attrs.frozen
class Schedule:
    """How the rounds are run.

    Attributes:
        budget_s: seconds for warm-up and all rounds.
        reference: the row that the others are compared with.
        rng: draws the orders.
        floor: spread between processes that is known of this device.
        watch: looks at the device around blocks.
        stopped: asked after each block; true ends the rounds.
        on_warm_up: told before the warm-up.
        on_round: told after each round.
        on_block: told of each scored block: its row_state, whose last block it is.
        now: the clock of the budget.
        shuffle: false only to show that a fixed order fails.
    """

    budget_s: float
    reference: str
    rng: random.Random
    floor: float = 0.0
    watch: Watch = attrs.field(factory=Unwatched)
    stopped: Callable[[], bool] = lambda: False
    on_warm_up: Callable[[], object] = lambda: None
    on_round: Callable[[RoundStatus], object] = lambda _: None
    on_block: Callable[[RowState], object] = lambda _: None
    now: Callable[[], float] = time.monotonic
    shuffle: bool = True


def run_rounds(row_states: Sequence[RowState], rules: Schedule) -> str:
    """Warm all rows up and measure them, block by block, until there is enough.

    A row whose prepared breaks is left out from then on; what it had measured stays.

    Args:
        row_states: one for each row; their blocks are filled.
        rules: how.

    Returns:
        What ended it: `target`, `process_level`, `rounds`, `budget` or `interrupted`.
    """
    begun_s = rules.now()
    end_s = begun_s + rules.budget_s
    _plan_warmup(row_states)
    rules.on_warm_up()
    overhead_s = _warm_up(row_states, rules, begun_s)
    _plan_blocks(row_states, end_s - rules.now(), overhead_s)
    started_s, met = rules.now(), 0
    for number in range(MAX_ROUNDS):
        if not _one_round(row_states, number, rules):
            return "interrupted"
        done, now_s = number + 1, rules.now()
        rules.on_round(
            RoundStatus(done, _remaining_s(row_states, rules, done, now_s - started_s, end_s))
        )
        if not any(row_state.error is None for row_state in row_states) or now_s >= end_s:
            return "budget"
        if done >= MIN_ROUNDS + _throttled_rounds(row_states) and done % _CHECK_EVERY == 0:
            reason = _enough(row_states, rules)
            met = met + 1 if reason else 0
            if reason and met >= _CHECKS_IN_A_ROW:
                return reason
    return "rounds"


def _throttled_rounds(row_states: Sequence[RowState]) -> int:
    """Rounds to add for those in which the device was held down; never more than the least."""
    rounds = {
        (block.session, block.round)
        for row_state in row_states
        for block in row_state.blocks
        if block.state and block.state.throttled
    }
    return min(MIN_ROUNDS, len(rounds))


def single_rounds(row_state: RowState, prepared: PreparedBackend, place: tuple[int, int]) -> None:
    """Warm up and measure a fresh prepared of a row once, where rows are started anew each round.

    Args:
        row_state: of the row; it takes the prepared where that does not break.
        prepared: as it was opened.
        place: the round, and the row's position in it.

    Raises:
        PrecisionBenchError: the prepared broke.
    """
    newest = RowState(row_state.name, [prepared])
    rules = Schedule(math.inf, row_state.name, random.Random(0))
    _plan_warmup([newest])
    _warm_up([newest], rules, rules.now())
    _plan_blocks([newest], math.inf, 0.0)
    if not newest.error:
        _one_round([newest], place[0], rules)
    if newest.error:
        raise newest.error
    row_state.calls_per_sample = (
        row_state.calls_per_sample if row_state.blocks else newest.calls_per_sample
    )
    row_state.warmup_calls += newest.warmup_calls
    replica = len(row_state.replicas)
    row_state.replicas.append(prepared)
    row_state.blocks += [
        attrs.evolve(block, position=place[1], replica=replica) for block in newest.blocks
    ]


def _replicas_in_order(
    row_states: Sequence[RowState], rules: Schedule
) -> list[tuple[RowState, int]]:
    """Every replica of every row that still runs, in this round's order."""
    replicas = [
        (row_state, i)
        for row_state in row_states
        if row_state.error is None
        for i in range(len(row_state.replicas))
    ]
    if rules.shuffle:
        rules.rng.shuffle(replicas)
    return replicas


def _one_round(row_states: Sequence[RowState], number: int, rules: Schedule) -> bool:
    """Measure each replica once; false where the user has asked to stop."""
    for position, (row_state, replica) in enumerate(_replicas_in_order(row_states, rules)):
        if rules.stopped():
            return False
        if row_state.error is not None:
            continue
        rules.watch.before()
        samples = _block(row_state, replica)
        state = rules.watch.after()
        if samples:
            block = Block(number, position, replica, samples, row_state.session, state)
            row_state.blocks.append(block)
            rules.on_block(row_state)
    return not rules.stopped()


def _block(row_state: RowState, replica: int) -> tuple[float, ...]:
    try:
        prepared: PreparedBackend = row_state.replicas[replica]
        return prepared.block(row_state.samples, row_state.calls_per_sample, row_state.settle_calls)
    except PrecisionBenchError as exc:
        row_state.error = exc
        return ()


def _plan_warmup(row_states: Sequence[RowState]) -> None:
    for row_state in row_states:
        opening, call_s = row_state.replicas[0].opening, row_state.call_s
        shortest = max(call_s, opening.resolution_s)
        row_state.calls_per_sample = max(1, math.ceil(opening.min_sample_s / shortest))
        row_state.samples = max(1, math.ceil(_BLOCK_S / (call_s * row_state.calls_per_sample)))
        row_state.warmup_calls = [0] * len(row_state.replicas)


def _warm_up(row_states: Sequence[RowState], rules: Schedule, begun_s: float) -> float:
    """Unscored rounds until each row had its time and seems settled; never longer than the cap.

    Returns:
        Seconds that a block takes beside its calls: the looks at the device, the way to a worker.
    """
    cap_s = min(_WARMUP_LIMIT_S * len(row_states), rules.budget_s * _WARMUP_SHARE)
    seen: dict[str, list[tuple[int, float]]] = {row_state.name: [] for row_state in row_states}
    beside: list[float] = []
    while rules.now() < begun_s + cap_s and not all(
        _is_warm(row_state, seen) for row_state in row_states
    ):
        for row_state, replica in _replicas_in_order(row_states, rules):
            if row_state.error is None:
                beside.append(_warm_up_block(row_state, replica, rules, seen[row_state.name]))
            if rules.now() >= begun_s + cap_s or rules.stopped():
                return _typical(beside)
    return _typical(beside)


def _warm_up_block(
    row_state: RowState, replica: int, rules: Schedule, seen: list[tuple[int, float]]
) -> float:
    """One unscored block; the seconds that it took beside its calls."""
    begun_s = rules.now()
    rules.watch.before()
    samples = _block(row_state, replica)
    rules.watch.after()
    if samples:
        seen.append((replica, median(samples)))
        row_state.warmup_calls[replica] += len(samples) * row_state.calls_per_sample
    return max(0.0, rules.now() - begun_s - sum(samples) * row_state.calls_per_sample)


def _typical(seconds: Sequence[float]) -> float:
    return median(seconds) if seconds else 0.0


def _is_warm(row_state: RowState, seen: Mapping[str, Sequence[tuple[int, float]]]) -> bool:
    medians = _beyond_replicas(seen[row_state.name])
    enough = len(medians) >= _WARMUP_BLOCKS * len(row_state.replicas)
    long = sum(row_state.warmup_calls) * row_state.call_s >= _WARMUP_S
    return row_state.error is not None or (
        enough and long and has_settled(medians, _noise(medians))
    )


def _beyond_replicas(seen: Sequence[tuple[int, float]]) -> list[float]:
    """Block medians in units of their replica's: that processes differ is no warm-up."""
    levels: dict[int, list[float]] = {}
    for replica, value in seen:
        levels.setdefault(replica, []).append(value)
    centres = {replica: median(values) for replica, values in levels.items()}
    return [value / centres[replica] for replica, value in seen]


def _noise(medians: Sequence[float]) -> float:
    """Relative spread of neighbouring blocks: halves that differ by less say nothing."""
    last = medians[-8:]
    steps = [abs(b / a - 1) for a, b in itertools.pairwise(last)]
    return median(steps) if steps else 0.0


def _plan_blocks(row_states: Sequence[RowState], remaining_s: float, overhead_s: float) -> None:
    """Blocks as long as they should be, shorter where the budget would not hold enough rounds.

    Args:
        row_states: whose blocks to plan.
        remaining_s: for all rounds.
        overhead_s: what a block takes beside its calls.
    """
    for row_state in row_states:
        sample_s = row_state.call_s * row_state.calls_per_sample
        _set_samples(row_state, max(_BLOCK_SAMPLES, math.ceil(_BLOCK_S / sample_s)))
    replicas = sum(len(row_state.replicas) for row_state in row_states)
    block_s = sum(row_state.block_s for row_state in row_states)
    share = (remaining_s / MIN_ROUNDS - overhead_s * replicas) / block_s if block_s else 1.0
    if share < 1:
        for row_state in row_states:
            _set_samples(row_state, max(1, int(row_state.samples * share)))


def _set_samples(row_state: RowState, samples: int) -> None:
    """So many samples in a block, after settling calls that are a quarter of it at most."""
    row_state.samples = samples
    if row_state.replicas[0].opening.clock == "host":
        row_state.settle_calls = 1
        return
    wanted = max(_SETTLE_CALLS, math.ceil(_SETTLE_S / row_state.call_s))
    allowed = samples * row_state.calls_per_sample * _SETTLE_SHARE / (1 - _SETTLE_SHARE)
    row_state.settle_calls = max(1, min(wanted, round(allowed)))


def _enough(row_states: Sequence[RowState], rules: Schedule) -> str | None:
    """Why no more rounds are needed, if that is so."""
    alive = [row_state for row_state in row_states if row_state.error is None]
    rows = {row_state.name: row_state.blocks for row_state in alive}
    wide = [name for name, blocks in rows.items() if _median_width(blocks) > _TARGET_MEDIAN]
    others = [name for name in rows if name != rules.reference and rules.reference in rows]
    ratios = {name: ratio_of(rows, rules.reference, name, 0.95, rules.floor) for name in others}
    loose = [name for name, found in ratios.items() if found.relative_half_width > _TARGET_RATIO]
    if not wide and not loose:
        return "target"
    if any(within_share(rows[name]) > _USELESS_SHARE for name in {*wide, *loose}):
        return None
    return None if wide else "process_level"


def _median_width(blocks: Sequence[Block]) -> float:
    return quantile_interval(by_round(blocks)).relative_half_width


def by_round(blocks: Sequence[Block]) -> list[list[float]]:
    """All samples of each round."""
    found: dict[tuple[int, int], list[float]] = {}
    for block in blocks:
        found.setdefault((block.session, block.round), []).extend(block.samples)
    return list(found.values())


def _remaining_s(
    row_states: Sequence[RowState], rules: Schedule, done: int, spent_s: float, end_s: float
) -> float | None:
    """R (half-width / target)^2 rounds in all, within the limits; None before it can be told."""
    if done < FLOOR_ROUNDS:
        return None
    widths = [
        _median_width(row_state.blocks) for row_state in row_states if row_state.error is None
    ]
    needed = done * max((w / _TARGET_MEDIAN) ** 2 for w in widths) if widths else done
    total = min(MAX_ROUNDS, max(MIN_ROUNDS, needed))
    return max(0.0, min((total - done) * spent_s / done, end_s - rules.now()))


def few_rounds(measurement: Measurement) -> tuple[str, ...]:
    """What a reader must know of a measurement that was cut short."""
    count = len(measurement.rounds)
    if count >= FLOOR_ROUNDS:
        return ()
    if measurement.ended_by in ("failed", "interrupted"):
        return (f"only {count} rounds were finished, so the interval is merely the range seen",)
    return (
        f"only {count} of {MIN_ROUNDS} rounds fitted in the time, so the interval is merely the "
        "range seen; give a larger budget or a smaller batch",
    )
