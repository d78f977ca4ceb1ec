"""The interleaved rounds over prepared backends.

In every round each replica of each row is measured for one block, in a new random order: drift
and clock states then affect all rows alike, which no fixed order achieves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import mean, median

import attrs

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.measure.block_plan import is_warm, plan_blocks, plan_warmup, plan_warmup_block
from precisionbench.measure.guard import explained
from precisionbench.measure.schedule import RoundStatus, RowState, Schedule
from precisionbench.measure.stopping import StopRule
from precisionbench.measure.worker.protocol import PreparedBackend
from precisionbench.results import Block

_WARMUP_LIMIT_S = 0.6  # for each row
_WARMUP_SHARE = 0.25  # of the budget, at most


def run_rounds(row_states: Sequence[RowState], schedule: Schedule) -> str:
    """Warm all rows up and measure them round by round until there is enough.

    A row whose backend fails is left out from then on; its blocks so far are kept, and the time
    until it failed is not counted.

    Args:
        row_states: one for each row; their blocks are filled.
        schedule: how to run the rounds.

    Returns:
        What ended the rounds: `target`, `process_level`, `clear`, `rounds`, `budget` or
        `interrupted`.
    """
    begun_s = schedule.now()
    end_s = begun_s + schedule.budget_s
    plan_warmup(row_states)
    schedule.on_warm_up()
    overhead_s = warm_up(row_states, schedule, begun_s)
    plan_blocks(row_states, end_s - schedule.now(), overhead_s, schedule.min_rounds)
    return _measure(row_states, schedule, end_s)


def _measure(row_states: Sequence[RowState], schedule: Schedule, end_s: float) -> str:
    """Rounds until the stop rule, the budget, the user or the number of rounds ends them.

    A round begins only if half of it at least fits in what is left of the budget.
    """
    schedule.on_first_round()
    started_s, stop_rule = schedule.now(), StopRule(schedule)
    for number in range(schedule.max_rounds):
        if not _one_round(row_states, number, schedule):
            return "interrupted"
        done, now_s = number + 1, schedule.now()
        round_s = (now_s - started_s) / done
        outlook = stop_rule.look(row_states, done)
        left_s = max(0.0, min(outlook.rounds_left * round_s, end_s - now_s))
        schedule.on_round(RoundStatus(done, left_s))
        if outlook.reason:
            return outlook.reason
        none_left = all(row_state.error is not None for row_state in row_states)
        if none_left or now_s + round_s / 2 >= end_s:
            return "budget"
    return "rounds"


def run_single_round(
    row_state: RowState, prepared: PreparedBackend, number: int, position: int
) -> None:
    """Warm up a new replica and measure one block, where rows are restarted in every round.

    Args:
        row_state: of the row; it takes the replica and its block unless the replica fails.
        prepared: the new replica.
        number: of the round.
        position: the row's position in the round.

    Raises:
        PrecisionBenchError: the replica failed.
    """
    newest = RowState(row_state.name, [prepared])
    schedule = Schedule(math.inf, row_state.name, random.Random(0))
    plan_warmup([newest])
    warm_up([newest], schedule, schedule.now())
    plan_blocks([newest], math.inf, 0.0)
    if not newest.error:
        _one_round([newest], number, schedule)
    if newest.error:
        raise newest.error
    if not row_state.blocks:
        row_state.calls_per_sample = newest.calls_per_sample
    replica = len(row_state.replicas)
    row_state.warmup_calls += newest.warmup_calls
    row_state.replicas.append(prepared)
    row_state.blocks += [
        attrs.evolve(block, position=position, replica=replica) for block in newest.blocks
    ]


def _replicas_in_order(
    row_states: Sequence[RowState], schedule: Schedule
) -> list[tuple[RowState, int]]:
    """Every replica of every row that has not failed, in the order of a new round."""
    replicas = [
        (row_state, i)
        for row_state in row_states
        if row_state.error is None
        for i in range(len(row_state.replicas))
    ]
    if schedule.shuffle:
        schedule.rng.shuffle(replicas)
    return replicas


def _one_round(row_states: Sequence[RowState], number: int, schedule: Schedule) -> bool:
    """Measure each replica once; false where the user has asked to stop."""
    for position, (row_state, replica) in enumerate(_replicas_in_order(row_states, schedule)):
        if schedule.stop_requested():
            return False
        if row_state.error is not None:
            continue
        schedule.telemetry.before()
        samples = _block(row_state, replica, schedule)
        state = schedule.telemetry.after()
        if samples:
            block = Block(number, position, replica, samples, row_state.session, state)
            row_state.blocks.append(block)
            schedule.on_block(row_state)
    return not schedule.stop_requested()


def _block(row_state: RowState, replica: int, schedule: Schedule) -> tuple[float, ...]:
    """The samples of one block; empty where the replica failed, and its row with it."""
    prepared: PreparedBackend = row_state.replicas[replica]
    size = row_state.samples, row_state.calls_per_sample, row_state.settle_calls
    try:
        with schedule.now.uncounted_if_it_fails():
            return prepared.block(*size)
    except FOREIGN_ERRORS as exc:
        row_state.error, row_state.failed_replica = explained(exc), replica
        return ()


def warm_up(row_states: Sequence[RowState], schedule: Schedule, begun_s: float) -> float:
    """Run rounds that do not count until every row is warm, within a time limit.

    Args:
        row_states: of all rows, whose warm-up is planned.
        schedule: how to run the rounds.
        begun_s: when the warm-up began, on the schedule's clock.

    Returns:
        Seconds that a block takes besides its calls: reading the device's state, and asking a
        worker.
    """
    limit_s = min(_WARMUP_LIMIT_S * len(row_states), schedule.budget_s * _WARMUP_SHARE)
    end_s = begun_s + limit_s
    medians: dict[str, list[tuple[int, float]]] = {row_state.name: [] for row_state in row_states}
    overheads_s: list[float] = []
    while schedule.now() < end_s and not all(
        is_warm(row_state, medians[row_state.name]) for row_state in row_states
    ):
        for row_state, replica in _replicas_in_order(row_states, schedule):
            if row_state.error is None:
                overheads_s.append(
                    _warm_up_block(row_state, replica, schedule, medians[row_state.name])
                )
            if schedule.now() >= end_s or schedule.stop_requested():
                return _typical(overheads_s)
    return _typical(overheads_s)


def _warm_up_block(
    row_state: RowState, replica: int, schedule: Schedule, medians: list[tuple[int, float]]
) -> float:
    """One block that does not count; the seconds that it took besides its calls."""
    begun_s = schedule.now()
    schedule.telemetry.before()
    samples = _block(row_state, replica, schedule)
    schedule.telemetry.after()
    if samples:
        medians.append((replica, median(samples)))
        row_state.warmup_call_s.append(mean(samples))
        plan_warmup_block(row_state)
        row_state.warmup_calls[replica] += len(samples) * row_state.calls_per_sample
    return max(0.0, schedule.now() - begun_s - sum(samples) * row_state.calls_per_sample)


def _typical(seconds: Sequence[float]) -> float:
    return median(seconds) if seconds else 0.0
