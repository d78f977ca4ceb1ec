"""When there are enough rounds: the stop rule, and how many it will take to get there.

Rounds end when intervals are narrow enough (`target`), when more rounds would not narrow them
(`process_level`), or when every verdict is clear (`clear`). The first two read widths only.
Stopping at a wanted verdict would bias it, so `clear` asks for far more than a verdict does: an
interval of 99.9 % confidence that excludes every ratio within 5 % of 1, or one of the result's
confidence within the margin. Equal rows are then called different no more often than by chance
(tests/test_stop_rule.py). Where rows are ranked, their ratios over the fastest one count, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import attrs

from precisionbench.analysis.speedups import RatioAt, ratios_over
from precisionbench.analysis.variation import (
    MIN_INTERVAL_ROUNDS,
    least_interval_rounds,
    within_share,
)
from precisionbench.measure.schedule import MIN_ROUNDS, RowState, Schedule
from precisionbench.results import Block, Measurement
from precisionbench.results.latency import latency_interval, process_spread, replica_levels
from precisionbench.statistics import Interval, Spread
from precisionbench.statistics.ratios import mean_level_interval
from precisionbench.statistics.verdicts import MARGIN

# Relative half-widths of 95 % intervals that are narrow enough (docs/between-processes.md).
_TARGET_RATIO = 0.005  # of a speed-up
_TARGET_LATENCY = 0.01
_CLEAR_RATIO = 0.25  # where the verdict is clear
_CLEAR_LATENCY = 0.25
_CLEAR_CONFIDENCE = 0.999
_FAR = 0.05  # from 1: a clear difference
_CHECKS_IN_A_ROW = 2
# More rounds narrow an interval by a tenth at most where noise within a process, or what it adds to
# the interval, is this small a share of the variance.
_USELESS_SHARE = 0.2
_CHECK_EVERY_ROUND_UNTIL = 16  # checks take longer with the rounds; from then on they are fewer


@attrs.frozen
class Outlook:
    """What the rounds so far say of those to come.

    Attributes:
        reason: why to stop now: `target`, `process_level` or `clear`; None to go on.
        rounds_left: how many more there will be, about.
    """

    reason: str | None
    rounds_left: float


@attrs.define
class StopRule:
    """Ends the rounds once intervals are narrow enough, cannot become so, or leave no doubt.

    Attributes:
        schedule: names the reference and the noise floor.
    """

    schedule: Schedule
    _met: int = attrs.field(default=0, init=False)
    _needed: float = attrs.field(default=0.0, init=False)

    def look(self, row_states: Sequence[RowState], rounds: int) -> Outlook:
        """Whether to stop after a round.

        Args:
            row_states: of all rows.
            rounds: finished so far.
        """
        least = self.schedule.least_rounds(row_states)
        throttled = throttled_rounds(row_states)
        if throttled < rounds:  # else further rounds would be throttled, too
            least += min(least, throttled)
        found = None
        if rounds > least - _CHECKS_IN_A_ROW and _is_due(rounds):
            state = _State.of(row_states, self.schedule)
            found = state.reason() if state else None
            self._met = self._met + 1 if found else 0
            self._needed = state.rounds_needed(rounds) if state and not found else 0.0
        is_over = self._met >= _CHECKS_IN_A_ROW and rounds >= least
        needed = max(least, self._needed, rounds + (not is_over))
        left = max(0.0, min(needed, self.schedule.max_rounds) - rounds)
        return Outlook(found if is_over else None, left)


def _is_due(rounds: int) -> bool:
    return rounds % (1 + rounds // _CHECK_EVERY_ROUND_UNTIL) == 0


def measured_blocks(row_states: Iterable[RowState]) -> dict[str, list[Block]]:
    """The blocks of each row that has not failed.

    Args:
        row_states: of all rows.
    """
    return {row_state.name: row_state.blocks for row_state in row_states if row_state.error is None}


def ratios_per_item(
    row_states: Sequence[RowState], reference_of: Callable[[str], str], noise_floor: float
) -> dict[str, RatioAt]:
    """For each row with a reference, how many times as many items per second it serves.

    Args:
        row_states: of all rows.
        reference_of: the row that a row is compared with, by its name.
        noise_floor: known run-to-run standard deviation of the log on this device.
    """
    items = {row_state.name: row_state.items for row_state in row_states}
    ratios = ratios_over(measured_blocks(row_states), reference_of, noise_floor)
    return {
        name: partial(_scaled, ratio, items[name] / items[reference_of(name)])
        for name, ratio in ratios.items()
    }


def _scaled(ratio: RatioAt, factor: float, confidence: float) -> Interval:
    return ratio(confidence).scaled(factor)


def _over_fastest(
    row_states: Sequence[RowState], ratios: Mapping[str, RatioAt], noise_floor: float
) -> dict[str, RatioAt]:
    """The ratios of rows over the fastest one; empty where that is the reference."""
    speeds = {name: ratio(0.95).value for name, ratio in ratios.items()}
    fastest = max(speeds, key=speeds.__getitem__, default=None)
    if fastest is None or speeds[fastest] <= 1:
        return {}
    return ratios_per_item(row_states, lambda _: fastest, noise_floor)


def throttled_rounds(row_states: Iterable[RowState]) -> int:
    """How many rounds there were in which the device throttled.

    Args:
        row_states: of all rows.
    """
    return len(
        {
            block.round_key
            for row_state in row_states
            for block in row_state.blocks
            if block.state and block.state.throttled
        }
    )


@attrs.frozen
class _Row:
    """What the rounds so far say of a row.

    Attributes:
        latency: relative half-width of its interval.
        between: the part of that half-width that is the difference between processes.
        ratio: relative half-width of its speed-up; 0 where it has none.
        noise: the share of the variance of its processes' levels that is noise within them.
    """

    latency: float
    between: float
    ratio: float
    noise: float

    @property
    def within_share(self) -> float:
        """The largest share of a variance of the row that more rounds reduce."""
        within = 1 - (self.between / self.latency) ** 2 if self.latency else 0.0
        return max(self.noise, within if self.latency > _TARGET_LATENCY else 0.0)

    @property
    def can_narrow(self) -> bool:
        """Whether more rounds would narrow its intervals."""
        return self.within_share > _USELESS_SHARE

    @property
    def is_narrow(self) -> bool:
        return self.latency <= _TARGET_LATENCY and self.ratio <= _TARGET_RATIO

    @property
    def factor(self) -> float:
        """How many times as many rounds it needs, by the quicker of the two ways to end.

        The part of a half-width that is noise shrinks with the square root of the rounds.
        """
        useless = self.within_share / _USELESS_SHARE
        room = (_TARGET_LATENCY**2 - self.between**2) if self.latency > _TARGET_LATENCY else 1.0
        narrow = (self.latency**2 - self.between**2) / room if room > 0 else math.inf
        ratio = (self.ratio / _TARGET_RATIO) ** 2 if self.noise > _USELESS_SHARE else 0.0
        return min(useless, max(narrow, ratio))


@attrs.frozen
class _State:
    """What the rounds so far say of all rows.

    Attributes:
        rows: by name.
        ratios: their speed-ups over the reference, by the confidence.
        rivals: those over the fastest row; empty where rows are not ranked.
        schedule: how the rounds are run.
        may_be_clear: whether there can be clear verdicts.
    """

    rows: Mapping[str, _Row]
    ratios: Mapping[str, RatioAt]
    rivals: Mapping[str, RatioAt]
    schedule: Schedule
    may_be_clear: bool

    @classmethod
    def of(cls, row_states: Sequence[RowState], schedule: Schedule) -> _State | None:
        """None where every row has failed."""
        active = [row_state for row_state in row_states if row_state.error is None]
        if not active:
            return None
        blocks, floor = measured_blocks(active), schedule.noise_floor
        steps_s = {
            row_state.name: row_state.openings[0].resolution_s / row_state.calls_per_sample
            for row_state in active
        }
        spread = process_spread(blocks.values())
        ratios = ratios_per_item(active, schedule.reference_of, floor)
        rows = {
            name: _row(own, spread, floor, steps_s[name], ratios.get(name))
            for name, own in blocks.items()
        }
        has_verdicts = bool(floor) or all(len(row_state.replicas) > 1 for row_state in active)
        may_be_clear = schedule.until_clear and has_verdicts
        rivals = _over_fastest(active, ratios, floor) if schedule.ranked else {}
        return cls(rows, ratios, rivals, schedule, may_be_clear)

    def reason(self) -> str | None:
        """Why there are enough rounds; None where there are not."""
        wide = {name for name, row in self.rows.items() if not row.is_narrow}
        if not wide:
            return "target"
        wide |= {  # a wide speed-up can also be the reference's
            self.schedule.reference_of(name)
            for name in wide & self.ratios.keys()
            if self.rows[name].ratio > _TARGET_RATIO
        }
        if not any(self.rows[name].can_narrow for name in wide):
            return "process_level"
        return "clear" if self._is_clear() else None

    def _is_clear(self) -> bool:
        if not self.may_be_clear or not self.ratios:
            return False
        if any(row.latency > _CLEAR_LATENCY and row.can_narrow for row in self.rows.values()):
            return False
        return all(
            _has_clear_verdict(ratio, len(family))
            for family in (self.ratios, self.rivals)
            for ratio in family.values()
        )

    def rounds_needed(self, rounds: int) -> float:
        """About how many rounds it takes until there are enough.

        Args:
            rounds: finished so far.
        """
        return rounds * max(row.factor for row in self.rows.values())


def _row(
    blocks: Sequence[Block],
    spread: Spread,
    floor: float,
    step_s: float,
    ratio: RatioAt | None,
) -> _Row:
    levels = [*replica_levels(blocks).values()]
    return _Row(
        latency=latency_interval(blocks, spread, floor, step_s).relative_half_width,
        between=mean_level_interval(levels, 0.95, spread, floor).exp().relative_half_width,
        ratio=ratio(0.95).relative_half_width if ratio else 0.0,
        noise=within_share(blocks, max(spread.sd, floor)),
    )


def _has_clear_verdict(ratio: RatioAt, ratios: int) -> bool:
    """Whether a speed-up is far from 1, or equal to it at the confidence of the result."""
    if ratio(0.95).relative_half_width > _CLEAR_RATIO:
        return False
    far, simultaneous = ratio(_CLEAR_CONFIDENCE), ratio(1 - 0.05 / ratios)
    is_far = far.low > 1 + _FAR or far.high < 1 / (1 + _FAR)
    is_equal = simultaneous.low >= 1 / (1 + MARGIN) and simultaneous.high <= 1 + MARGIN
    return is_far or is_equal


def few_rounds_warnings(measurement: Measurement, has_batch: bool = True) -> tuple[str, ...]:
    """A warning where a measurement has too few rounds, for its number of processes.

    Args:
        measurement: of one row.
        has_batch: whether the row could have a smaller batch.
    """
    count = len(measurement.rounds)
    needed = least_interval_rounds(measurement.blocks)
    if count >= needed:
        return ()
    if measurement.ended_by in ("failed", "interrupted"):
        return (f"only {count} rounds were finished, so intervals are wide",)
    least = needed if needed < MIN_INTERVAL_ROUNDS else MIN_ROUNDS
    return (
        f"the budget ended after {count} of at least {least} rounds, so intervals are wide; "
        f"give a larger budget{' or a smaller batch' if has_batch else ''}",
    )
