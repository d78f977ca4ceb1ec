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
from precisionbench.measure.worker.protocol import Opening, Seat
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
class Lane:
    """One row while it is measured.

    Attributes:
        name: the row's name.
        seats: its replicas.
        session: which repetition of the whole.
        samples: in a block.
        calls_per_sample: for short calls.
        settle_calls: before a block.
        warmup_calls: made so far, of each seat.
        blocks: scored so far.
        warnings: what a reader of the row must know.
        error: what ended it early.
    """

    name: str
    seats: list[Any]  # of Seat; lists of remote ones are no lists of Seat to a type checker
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
        return calls * self.call_s * len(self.seats)

    @property
    def complete_rounds(self) -> int:
        """Rounds in which every replica was measured."""
        return len(self.blocks) // len(self.seats)

    @property
    def openings(self) -> list[Opening]:
        """What its seats said of themselves."""
        return [seat.opening for seat in self.seats]

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
class Status:
    """How far the rounds are.

    Attributes:
        round: rounds finished.
        remaining_s: about how long it will take still; None before that can be told.
    """

    round: int
    remaining_s: float | None


@attrs.frozen
class Rules:
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
        on_block: told of each scored block: its lane, whose last block it is.
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
    on_round: Callable[[Status], object] = lambda _: None
    on_block: Callable[[Lane], object] = lambda _: None
    now: Callable[[], float] = time.monotonic
    shuffle: bool = True


def run_rounds(lanes: Sequence[Lane], rules: Rules) -> str:
    """Warm all rows up and measure them, block by block, until there is enough.

    A row whose seat breaks is left out from then on; what it had measured stays.

    Args:
        lanes: one for each row; their blocks are filled.
        rules: how.

    Returns:
        What ended it: `target`, `process_level`, `rounds`, `budget` or `interrupted`.
    """
    begun_s = rules.now()
    end_s = begun_s + rules.budget_s
    _plan_warmup(lanes)
    rules.on_warm_up()
    overhead_s = _warm_up(lanes, rules, begun_s)
    _plan_blocks(lanes, end_s - rules.now(), overhead_s)
    started_s, met = rules.now(), 0
    for number in range(MAX_ROUNDS):
        if not _one_round(lanes, number, rules):
            return "interrupted"
        done, now_s = number + 1, rules.now()
        rules.on_round(Status(done, _remaining_s(lanes, rules, done, now_s - started_s, end_s)))
        if not any(lane.error is None for lane in lanes) or now_s >= end_s:
            return "budget"
        if done >= MIN_ROUNDS + _throttled_rounds(lanes) and done % _CHECK_EVERY == 0:
            reason = _enough(lanes, rules)
            met = met + 1 if reason else 0
            if reason and met >= _CHECKS_IN_A_ROW:
                return reason
    return "rounds"


def _throttled_rounds(lanes: Sequence[Lane]) -> int:
    """Rounds to add for those in which the device was held down; never more than the least."""
    rounds = {
        (block.session, block.round)
        for lane in lanes
        for block in lane.blocks
        if block.state and block.state.throttled
    }
    return min(MIN_ROUNDS, len(rounds))


def single_rounds(lane: Lane, seat: Seat, place: tuple[int, int]) -> None:
    """Warm up and measure a fresh seat of a row once, where rows are started anew each round.

    Args:
        lane: of the row; it takes the seat where that does not break.
        seat: as it was opened.
        place: the round, and the row's position in it.

    Raises:
        PrecisionBenchError: the seat broke.
    """
    newest = Lane(lane.name, [seat])
    rules = Rules(math.inf, lane.name, random.Random(0))
    _plan_warmup([newest])
    _warm_up([newest], rules, rules.now())
    _plan_blocks([newest], math.inf, 0.0)
    if not newest.error:
        _one_round([newest], place[0], rules)
    if newest.error:
        raise newest.error
    lane.calls_per_sample = lane.calls_per_sample if lane.blocks else newest.calls_per_sample
    lane.warmup_calls += newest.warmup_calls
    replica = len(lane.seats)
    lane.seats.append(seat)
    lane.blocks += [
        attrs.evolve(block, position=place[1], replica=replica) for block in newest.blocks
    ]


def _seats(lanes: Sequence[Lane], rules: Rules) -> list[tuple[Lane, int]]:
    """Every replica of every row that still runs, in this round's order."""
    seats = [(lane, i) for lane in lanes if lane.error is None for i in range(len(lane.seats))]
    if rules.shuffle:
        rules.rng.shuffle(seats)
    return seats


def _one_round(lanes: Sequence[Lane], number: int, rules: Rules) -> bool:
    """Measure each replica once; false where the user has asked to stop."""
    for position, (lane, replica) in enumerate(_seats(lanes, rules)):
        if rules.stopped():
            return False
        if lane.error is not None:
            continue
        rules.watch.before()
        samples = _block(lane, replica)
        state = rules.watch.after()
        if samples:
            block = Block(number, position, replica, samples, lane.session, state)
            lane.blocks.append(block)
            rules.on_block(lane)
    return not rules.stopped()


def _block(lane: Lane, replica: int) -> tuple[float, ...]:
    try:
        seat: Seat = lane.seats[replica]
        return seat.block(lane.samples, lane.calls_per_sample, lane.settle_calls)
    except PrecisionBenchError as exc:
        lane.error = exc
        return ()


def _plan_warmup(lanes: Sequence[Lane]) -> None:
    for lane in lanes:
        opening, call_s = lane.seats[0].opening, lane.call_s
        shortest = max(call_s, opening.resolution_s)
        lane.calls_per_sample = max(1, math.ceil(opening.min_sample_s / shortest))
        lane.samples = max(1, math.ceil(_BLOCK_S / (call_s * lane.calls_per_sample)))
        lane.warmup_calls = [0] * len(lane.seats)


def _warm_up(lanes: Sequence[Lane], rules: Rules, begun_s: float) -> float:
    """Unscored rounds until each row had its time and seems settled; never longer than the cap.

    Returns:
        Seconds that a block takes beside its calls: the looks at the device, the way to a worker.
    """
    cap_s = min(_WARMUP_LIMIT_S * len(lanes), rules.budget_s * _WARMUP_SHARE)
    seen: dict[str, list[tuple[int, float]]] = {lane.name: [] for lane in lanes}
    beside: list[float] = []
    while rules.now() < begun_s + cap_s and not all(_is_warm(lane, seen) for lane in lanes):
        for lane, replica in _seats(lanes, rules):
            if lane.error is None:
                beside.append(_warm_up_block(lane, replica, rules, seen[lane.name]))
            if rules.now() >= begun_s + cap_s or rules.stopped():
                return _typical(beside)
    return _typical(beside)


def _warm_up_block(lane: Lane, replica: int, rules: Rules, seen: list[tuple[int, float]]) -> float:
    """One unscored block; the seconds that it took beside its calls."""
    begun_s = rules.now()
    rules.watch.before()
    samples = _block(lane, replica)
    rules.watch.after()
    if samples:
        seen.append((replica, median(samples)))
        lane.warmup_calls[replica] += len(samples) * lane.calls_per_sample
    return max(0.0, rules.now() - begun_s - sum(samples) * lane.calls_per_sample)


def _typical(seconds: Sequence[float]) -> float:
    return median(seconds) if seconds else 0.0


def _is_warm(lane: Lane, seen: Mapping[str, Sequence[tuple[int, float]]]) -> bool:
    medians = _beyond_replicas(seen[lane.name])
    enough = len(medians) >= _WARMUP_BLOCKS * len(lane.seats)
    long = sum(lane.warmup_calls) * lane.call_s >= _WARMUP_S
    return lane.error is not None or (enough and long and has_settled(medians, _noise(medians)))


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


def _plan_blocks(lanes: Sequence[Lane], remaining_s: float, overhead_s: float) -> None:
    """Blocks as long as they should be, shorter where the budget would not hold enough rounds.

    Args:
        lanes: whose blocks to plan.
        remaining_s: for all rounds.
        overhead_s: what a block takes beside its calls.
    """
    for lane in lanes:
        sample_s = lane.call_s * lane.calls_per_sample
        _set_samples(lane, max(_BLOCK_SAMPLES, math.ceil(_BLOCK_S / sample_s)))
    seats = sum(len(lane.seats) for lane in lanes)
    block_s = sum(lane.block_s for lane in lanes)
    share = (remaining_s / MIN_ROUNDS - overhead_s * seats) / block_s if block_s else 1.0
    if share < 1:
        for lane in lanes:
            _set_samples(lane, max(1, int(lane.samples * share)))


def _set_samples(lane: Lane, samples: int) -> None:
    """So many samples in a block, after settling calls that are a quarter of it at most."""
    lane.samples = samples
    if lane.seats[0].opening.clock == "host":
        lane.settle_calls = 1
        return
    wanted = max(_SETTLE_CALLS, math.ceil(_SETTLE_S / lane.call_s))
    allowed = samples * lane.calls_per_sample * _SETTLE_SHARE / (1 - _SETTLE_SHARE)
    lane.settle_calls = max(1, min(wanted, round(allowed)))


def _enough(lanes: Sequence[Lane], rules: Rules) -> str | None:
    """Why no more rounds are needed, if that is so."""
    alive = [lane for lane in lanes if lane.error is None]
    rows = {lane.name: lane.blocks for lane in alive}
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
    lanes: Sequence[Lane], rules: Rules, done: int, spent_s: float, end_s: float
) -> float | None:
    """R (half-width / target)^2 rounds in all, within the limits; None before it can be told."""
    if done < FLOOR_ROUNDS:
        return None
    widths = [_median_width(lane.blocks) for lane in lanes if lane.error is None]
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
