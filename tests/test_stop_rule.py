"""When the rounds end, and that ending at clear verdicts does not make false ones more frequent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from precisionbench.analysis.speedups import ratio_of
from precisionbench.measure.schedule import MAX_ROUNDS, RowState, Schedule, least_rounds
from precisionbench.measure.stopping import StopRule, few_rounds_warnings, measured_blocks
from precisionbench.results import Block
from simulated_device import CALL_S, SimulatedBackend, SimulatedDevice

pytestmark = pytest.mark.uncounted

SESSIONS = 100
FLOOR = 0.0025
Noise = Callable[[random.Random], float]


def even(draw: random.Random) -> float:
    return draw.gauss(0, 0.0005)


def noisy(draw: random.Random) -> float:
    return draw.gauss(0, 0.01)


def heavy(draw: random.Random) -> float:
    return draw.gauss(0, 0.004) + (draw.random() < 0.1) * draw.expovariate(20)


def two_states(draw: random.Random) -> float:
    return draw.choice((0.0, 0.03)) + draw.gauss(0, 0.001)


def measured(
    draw: random.Random,
    noise: Noise,
    replicas: int = 3,
    ratios: tuple[float, ...] = (1.0, 1.0),
    spread: float = 0.003,
    batch_sizes: tuple[int, ...] = (),
    **schedule: object,
) -> tuple[list[RowState], str, list[float]]:
    """Rows measured until they end; why they did, and the rounds expected to be left after each."""
    device = SimulatedDevice(draw)
    row_states, levels = [], {}
    sizes = batch_sizes or (None,) * len(ratios)
    for i, (ratio, size) in enumerate(zip(ratios, sizes, strict=True)):
        row_states.append(RowState(str(i), [SimulatedBackend(device, CALL_S, size)] * replicas))
        row_states[-1].samples, row_states[-1].warmup_calls = 5, [0] * replicas
        levels[str(i)] = [draw.gauss(-math.log(ratio), spread) for _ in range(replicas)]
    known = {"budget_s": math.inf, "reference": "0", "rng": draw, **schedule}
    rule, left = StopRule(Schedule(**known)), []  # type: ignore[arg-type]
    for number in range(MAX_ROUNDS):
        for row_state in row_states:
            for replica, level in enumerate(levels[row_state.name]):
                centre = level + noise(draw)
                samples = tuple(CALL_S * math.exp(centre + draw.gauss(0, 0.001)) for _ in range(5))
                row_state.blocks.append(Block(number, 0, replica, samples))
        outlook = rule.look(row_states, number + 1)
        left.append(outlook.rounds_left)
        if outlook.reason:
            return row_states, outlook.reason, left
    return row_states, "rounds", left


@pytest.mark.slow  # many simulated runs
@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("noise", [even, noisy, heavy, two_states])
@pytest.mark.parametrize("ranked", [False, True])
def test_equal_rows_are_not_told_apart_more_often_than_by_chance(noise, replicas, ranked):
    wrong, ratios = 0, (1.0, 3.0, 3.0) if ranked else (1.0, 1.0)
    for seed in range(SESSIONS):
        row_states, _, _ = measured(random.Random(seed), noise, replicas, ratios, ranked=ranked)
        equal = [row_state.name for row_state in row_states[-2:]]
        wrong += ratio_of(measured_blocks(row_states), *equal, 0.95).excludes_1
    assert wrong / SESSIONS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / SESSIONS)


@pytest.mark.parametrize("ratio", [pytest.param(1.02, marks=pytest.mark.slow), 1.5])
def test_the_interval_holds_the_true_speed_up_wherever_the_rounds_end(ratio):
    held = 0
    for seed in range(SESSIONS):
        row_states, _, _ = measured(random.Random(seed), noisy, ratios=(1.0, ratio))
        interval = ratio_of(measured_blocks(row_states), "0", "1", 0.95)
        held += interval.low <= ratio <= interval.high
    assert held / SESSIONS >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / SESSIONS)


def test_rows_of_several_processes_end_after_four_rounds_where_more_would_not_narrow_anything():
    row_states, reason, _ = measured(random.Random(2), even)
    assert (reason, row_states[0].complete_rounds) == ("process_level", 4)


def test_rows_of_one_process_are_measured_in_twelve_rounds_at_least():
    row_states, _, _ = measured(random.Random(1), even, replicas=1, noise_floor=FLOOR)
    assert row_states[0].complete_rounds == 12


def test_long_rounds_may_be_three():
    row_states = [
        RowState(
            str(i), [SimulatedBackend(SimulatedDevice(random.Random(0)), 1.0)] * 2, samples=100
        )
        for i in range(2)
    ]
    assert least_rounds(row_states) == 3


def test_a_comparison_ends_when_every_verdict_is_clear_although_latencies_are_wide():
    row_states, reason, _ = measured(random.Random(0), noisy, ratios=(1.0, 3.0))
    assert (reason, row_states[0].complete_rounds) == ("clear", 4)


def test_clear_verdicts_end_nothing_where_narrow_intervals_are_wanted():
    _, reason, _ = measured(random.Random(0), noisy, ratios=(1.0, 3.0), until_clear=False)
    assert reason in ("target", "process_level")


RANKED = 40


def fastest_found(ratios: tuple[float, ...], **options: object) -> tuple[float, float]:
    """How often the last row is told to be faster than the one before it; rounds that it took."""
    found, rounds = 0, 0
    for seed in range(RANKED):
        row_states, _, _ = measured(random.Random(seed), noisy, ratios=ratios, **options)
        over = ratio_of(
            measured_blocks(row_states), str(len(ratios) - 2), str(len(ratios) - 1), 0.95
        )
        found += over.excludes_1 and over.value > 1
        rounds += row_states[0].complete_rounds
    return found / RANKED, rounds / RANKED


@pytest.mark.slow  # many simulated runs
def test_rows_that_are_ranked_are_measured_until_the_fastest_is_known():
    close = (1.0, 3.0, 3.06)
    found, rounds = fastest_found(close, replicas=2)
    ranked, more_rounds = fastest_found(close, replicas=2, ranked=True)
    assert ranked > found + 0.3
    assert rounds == 4
    assert more_rounds > 4 * rounds


def test_ranked_rows_that_are_far_apart_end_as_soon_as_others():
    _, reason, _ = measured(random.Random(0), noisy, ratios=(1.0, 3.0, 6.0), ranked=True)
    assert reason == "clear"
    row_states, reason, _ = measured(random.Random(0), noisy, ratios=(3.0, 1.0, 1.5), ranked=True)
    assert (reason, row_states[0].complete_rounds) == ("clear", 4)  # the reference is the fastest


def test_rows_with_batches_of_their_own_are_ranked_by_items():
    ratios, sizes = (1.0, 3.0, 1.5), (8, 8, 16)  # the last two serve as many items per second
    equal, _, _ = measured(random.Random(0), noisy, 3, ratios, batch_sizes=sizes, ranked=True)
    apart, reason, _ = measured(random.Random(0), noisy, 3, ratios, ranked=True)
    assert (reason, apart[0].complete_rounds) == ("clear", 4)
    assert equal[0].complete_rounds > 4


def test_one_process_each_without_a_known_floor_is_never_clear():
    _, reason, _ = measured(random.Random(0), noisy, replicas=1, ratios=(1.0, 3.0))
    assert reason != "clear"


def test_the_expected_rounds_shrink_to_none():
    _, _, left = measured(random.Random(3), noisy)
    assert left[:2] == [3.0, 2.0]
    assert left[-1] == 0
    assert max(left) < MAX_ROUNDS
    assert all(later > 0 for later in left[:-1])


def measurement(rounds: int, replicas: int, ended_by: str):
    row_states, _, _ = measured(random.Random(0), even, replicas, noise_floor=FLOOR)
    row_states[0].blocks = [b for b in row_states[0].blocks if b.round < rounds]
    return row_states[0].measurement(ended_by)


def test_few_rounds_of_several_processes_need_no_warning():
    assert few_rounds_warnings(measurement(3, 3, "budget")) == ()
    assert "after 2 of at least 3 rounds" in few_rounds_warnings(measurement(2, 3, "budget"))[0]
    assert "after 5 of at least 12 rounds" in few_rounds_warnings(measurement(5, 1, "budget"))[0]
    assert "only 1 rounds" in few_rounds_warnings(measurement(1, 3, "interrupted"))[0]
