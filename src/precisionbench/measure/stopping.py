"""When there are enough rounds: the stop rule, and how long it will take to get there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from precisionbench.analysis.speedups import ratio_of
from precisionbench.analysis.variation import MIN_INTERVAL_ROUNDS, within_share
from precisionbench.measure.schedule import MAX_ROUNDS, MIN_ROUNDS, RowState, Schedule
from precisionbench.results import Block, Measurement
from precisionbench.results.grouping import samples_by_round
from precisionbench.statistics import quantile_interval

# Relative half-widths of 95 % intervals that are narrow enough (docs/between-processes.md).
_TARGET_RATIO = 0.005  # of a speed-up
_TARGET_MEDIAN = 0.01  # of a latency
_CHECKS_IN_A_ROW = 2
_CHECK_EVERY = 2
# More rounds are of no use where noise within a process is this small a share of the variance.
_USELESS_SHARE = 0.1

Rows = Mapping[str, Sequence[Block]]


class StopRule:
    """Ends the rounds once intervals are narrow enough, or more rounds would not narrow them.

    It reads widths, never significance: stopping at a wanted verdict would bias the verdict.

    Args:
        schedule: names the reference and the noise floor.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._met = 0

    def reason(self, row_states: Sequence[RowState], rounds: int) -> str | None:
        """Why to stop after a round: `target` or `process_level`; None to go on.

        Args:
            row_states: of all rows.
            rounds: finished so far.
        """
        due = rounds >= MIN_ROUNDS + throttled_rounds(row_states) and rounds % _CHECK_EVERY == 0
        if not due:
            return None
        found = enough(measured_blocks(row_states), self._schedule)
        self._met = self._met + 1 if found else 0
        return found if self._met >= _CHECKS_IN_A_ROW else None


def measured_blocks(row_states: Iterable[RowState]) -> dict[str, list[Block]]:
    """The blocks of each row that has not failed.

    Args:
        row_states: of all rows.
    """
    return {row_state.name: row_state.blocks for row_state in row_states if row_state.error is None}


def enough(rows: Rows, schedule: Schedule) -> str | None:
    """Whether the intervals of all rows are narrow enough, or will not become any narrower.

    Args:
        rows: the blocks of every row.
        schedule: names the reference and the noise floor.

    Returns:
        `target`, `process_level`, or None where more rounds are of use.
    """
    wide = [name for name, blocks in rows.items() if _median_width(blocks) > _TARGET_MEDIAN]
    loose = [name for name in rows if _ratio_width(rows, name, schedule) > _TARGET_RATIO]
    if not wide and not loose:
        return "target"
    if any(within_share(rows[name]) > _USELESS_SHARE for name in {*wide, *loose}):
        return None
    return None if wide else "process_level"


def _median_width(blocks: Sequence[Block]) -> float:
    return quantile_interval(samples_by_round(blocks)).relative_half_width


def _ratio_width(rows: Rows, name: str, schedule: Schedule) -> float:
    """The relative half-width of a row's speed-up; 0 where it has none."""
    reference = schedule.reference
    if name == reference or reference not in rows:
        return 0.0
    return ratio_of(rows, reference, name, 0.95, schedule.noise_floor).relative_half_width


def throttled_rounds(row_states: Iterable[RowState]) -> int:
    """How many rounds to add for those in which the device throttled; at most `MIN_ROUNDS`.

    Args:
        row_states: of all rows.
    """
    throttled = {
        block.round_key
        for row_state in row_states
        for block in row_state.blocks
        if block.state and block.state.throttled
    }
    return min(MIN_ROUNDS, len(throttled))


def remaining_s(
    row_states: Iterable[RowState], rounds: int, spent_s: float, left_s: float
) -> float | None:
    """Estimated seconds to the end: a half-width shrinks with the square root of the rounds.

    Args:
        row_states: of all rows.
        rounds: finished so far.
        spent_s: seconds that they took.
        left_s: seconds left of the budget.

    Returns:
        The estimate; None while too few rounds are finished.
    """
    if rounds < MIN_INTERVAL_ROUNDS:
        return None
    widths = [_median_width(blocks) for blocks in measured_blocks(row_states).values()]
    needed = rounds * max((width / _TARGET_MEDIAN) ** 2 for width in widths) if widths else rounds
    total = min(MAX_ROUNDS, max(MIN_ROUNDS, needed))
    return max(0.0, min((total - rounds) * spent_s / rounds, left_s))


def few_rounds_warnings(measurement: Measurement) -> tuple[str, ...]:
    """A warning where a measurement has too few rounds for a 95 % interval.

    Args:
        measurement: of one row.
    """
    count = len(measurement.rounds)
    if count >= MIN_INTERVAL_ROUNDS:
        return ()
    if measurement.ended_by in ("failed", "interrupted"):
        return (f"only {count} rounds were finished, so intervals are wide",)
    return (
        f"the budget ended after {count} of at least {MIN_ROUNDS} rounds, so intervals are wide; "
        "give a larger budget or a smaller batch",
    )
