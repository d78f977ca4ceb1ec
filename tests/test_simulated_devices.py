"""Error rates and coverage of the statistics, on simulated devices (measurement.md, 6)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import mean

import pytest

from precisionbench.analysis.speedups import ratio_of
from precisionbench.measure.schedule import RoundStatus
from precisionbench.results import DeviceState
from precisionbench.statistics import (
    Interval,
    Verdict,
    carryover,
    quantile_interval,
    ratio_interval,
    signed_rank_rank,
    verdict_of,
    verdicts,
)
from simulated_device import ENVIRONMENTS, SimulatedDevice, drifting, session

pytestmark = pytest.mark.uncounted

SESSIONS = 100
FLOOR = 0.0025  # what processes on a GPU are taken to differ by where nobody has measured it
WRONG = (Verdict.FASTER, Verdict.SLOWER)


def ratio(seed: int, environment, ratios=(1.0, 1.0), spread=0.0, **options) -> Interval:
    device = SimulatedDevice(random.Random(seed), environment)
    rows = session(device, ratios, spread, noise_floor=FLOOR, **options)
    return ratio_of(rows, "0", "1", 0.95, FLOOR)


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("count", "rank"), [(5, 0), (6, 1), (10, 9), (12, 14), (16, 30), (20, 53), (30, 138)]
)
def test_the_signed_rank_constants(count, rank):
    assert signed_rank_rank(count) == rank  # Hollander & Wolfe, table A.4


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.slow if name in ("autocorrelated", "periodic throttling") else (),
        )
        for name in ENVIRONMENTS
    ],
)
def test_a_row_compared_with_itself_is_rarely_called_faster_or_slower(name):
    found = [ratio(seed, ENVIRONMENTS[name]) for seed in range(SESSIONS)]
    assert share([verdict_of(interval)[0] in WRONG for interval in found]) <= 0.05
    assert share([interval.excludes_1 for interval in found]) <= 0.07


def test_run_to_run_variance_is_rarely_called_faster_or_slower():
    found = [ratio(seed, ENVIRONMENTS["steady"], spread=0.003) for seed in range(SESSIONS)]
    assert share([verdict_of(interval)[0] in WRONG for interval in found]) <= 0.05
    assert share([interval.excludes_1 for interval in found]) <= 0.07


def one_process(seed: int) -> Interval:
    draw = random.Random(seed)
    levels = [math.exp(draw.gauss(0, 0.003)) for _ in range(2)]
    base, other = ([x * math.exp(draw.gauss(0, 0.0003)) for _ in range(20)] for x in levels)
    return ratio_interval(base, other)


def test_an_interval_from_one_process_excludes_1_too_often():
    """Negative control of run-to-run variance."""
    assert share([one_process(seed).excludes_1 for seed in range(SESSIONS)]) > 0.5


# The limit of 0.1 % is four standard errors from either mean bias: 0.0 % and 0.2 %.
DRIFTING_SESSIONS = SESSIONS // 4


def test_drift_does_not_bias_the_ratio():
    found = [ratio(seed, drifting, (1.0, 1.03)) for seed in range(DRIFTING_SESSIONS)]
    assert abs(mean(interval.value for interval in found) / 1.03 - 1) <= 0.001


def test_drift_biases_the_ratio_in_a_fixed_order():
    """Negative control of the random order."""
    found = [ratio(s, drifting, (1.0, 1.03), shuffle=False) for s in range(DRIFTING_SESSIONS)]
    assert abs(mean(interval.value for interval in found) / 1.03 - 1) > 0.001


def test_the_interval_covers_a_true_effect():
    found = [ratio(seed, ENVIRONMENTS["steady"], (1.0, 1.02), 0.002) for seed in range(SESSIONS)]
    assert 0.93 <= share([interval.low <= 1.02 <= interval.high for interval in found]) <= 0.98


def five_samples(draw: random.Random, level: float) -> float:
    return sorted(level * math.exp(draw.gauss(0, 0.01)) for _ in range(5))[2]


def test_twenty_rounds_find_a_difference_of_one_percent():
    found = []
    for seed in range(SESSIONS):
        draw = random.Random(seed)
        base, other = ([five_samples(draw, x) for _ in range(20)] for x in (1.01, 1.0))
        found.append(ratio_interval(base, other).excludes_1)
    assert share(found) >= 0.95


def iid(draw: random.Random) -> list[list[float]]:
    return [[draw.gauss(1, 0.05) for _ in range(10)] for _ in range(20)]


def heavy(draw: random.Random) -> list[list[float]]:
    return [[draw.lognormvariate(0, 0.5) for _ in range(10)] for _ in range(20)]


def bimodal(draw: random.Random) -> list[list[float]]:
    return [[draw.gauss(draw.choice((0.9, 1.1)), 0.05) for _ in range(10)] for _ in range(20)]


def ar(draw: random.Random) -> list[list[float]]:
    phi, state, rows = math.exp(-1 / 20), draw.gauss(0, 1), []
    for _ in range(20):
        row = []
        for _ in range(10):
            state = phi * state + draw.gauss(0, math.sqrt(1 - phi * phi))
            row.append(10 + state)
        rows.append(row)
    return rows


@pytest.mark.parametrize(("noise", "truth"), [(iid, 1.0), (heavy, 1.0), (bimodal, 1.0), (ar, 10.0)])
def test_the_interval_of_the_median_has_its_nominal_coverage(noise, truth):
    found = [quantile_interval(noise(random.Random(seed))) for seed in range(1000)]
    assert share([interval.low <= truth <= interval.high for interval in found]) >= 0.93


@pytest.mark.parametrize("noise", [iid, heavy, bimodal])
def test_the_interval_of_the_ratio_has_its_nominal_coverage(noise):
    found = []
    for seed in range(1000):
        draw = random.Random(seed)
        base, other = ([sorted(row)[5] for row in noise(draw)] for _ in range(2))
        found.append(not ratio_interval(base, other).excludes_1)
    assert 0.93 <= share(found) <= 0.98


def shared_ar(draw: random.Random) -> tuple[list[float], list[float]]:
    """Two rows on one device whose speed is autocorrelated, in a random order per round."""
    phi, state = math.exp(-1 / 20), draw.gauss(0, 1)
    rows: tuple[list[float], list[float]] = ([], [])
    for _ in range(20):
        for row in draw.sample(rows, 2):
            samples = []
            for _ in range(10):
                state = phi * state + draw.gauss(0, math.sqrt(1 - phi * phi))
                samples.append(10 + state)
            row.append(sorted(samples)[5])
    return rows


def test_the_interval_of_the_ratio_has_its_coverage_on_an_autocorrelated_device():
    found = [not ratio_interval(*shared_ar(random.Random(seed))).excludes_1 for seed in range(1000)]
    assert 0.93 <= share(found) <= 0.98


def test_the_stop_rule_does_not_raise_the_rate_of_false_differences():
    """Rounds end on widths of intervals, never on significance."""
    found = [ratio(seed, ENVIRONMENTS["autocorrelated"], spread=0.002) for seed in range(SESSIONS)]
    assert share([interval.excludes_1 for interval in found]) <= 0.07


def five_way(seed: int) -> bool:
    rows = session(SimulatedDevice(random.Random(seed)), (1.0,) * 5, 0.003, noise_floor=FLOOR)
    comparisons = {
        name: lambda confidence, name=name: ratio_of(rows, "0", name, confidence, FLOOR)
        for name in rows
        if name != "0"
    }
    wrong = (*WRONG, Verdict.DIFFERENT_BUT_SMALL)
    return any(verdict in wrong for _, verdict, _ in verdicts(comparisons).values())


@pytest.mark.slow  # many simulated runs
def test_five_equal_rows_are_rarely_called_different():
    assert share([five_way(seed) for seed in range(100)]) <= 0.06


def test_carryover_from_one_row_to_the_next_is_detected():
    draw = random.Random(0)
    before = [draw.choice("ab") for _ in range(40)]
    clean = [draw.gauss(0, 0.001) for _ in before]
    carried = [value + 0.003 * (b == "b") for value, b in zip(clean, before, strict=True)]
    assert carryover(carried, before, 0.01)
    assert not carryover(clean, before, 0.01)


class Throttled:
    """The device's power limit, in some rounds.

    Args:
        is_in: whether it holds in a round, by its number from 1.
    """

    def __init__(self, is_in: Callable[[int], bool]) -> None:
        self.is_in, self.round = is_in, 1

    def before(self) -> None:
        pass

    def after(self) -> DeviceState:
        return DeviceState(throttled=("sw_power_cap",) if self.is_in(self.round) else ())

    def next_round(self, status: RoundStatus) -> None:
        self.round = status.round + 1


@pytest.mark.parametrize(
    ("is_in", "rounds"),
    [
        pytest.param(lambda _: True, 4, id="in all rounds: more would be throttled, too"),
        pytest.param(lambda number: number == 2, 5, id="in one"),
        pytest.param(lambda number: number > 1, 8, id="in all but one"),
    ],
)
def test_the_fewest_rounds_grow_by_those_with_throttling_unless_all_have_it(is_in, rounds):
    device = SimulatedDevice(random.Random(0), noise=lambda _: 0.0)
    throttled = Throttled(is_in)
    rows = session(device, telemetry=throttled, on_round=throttled.next_round, budget_s=1e6)
    assert {len(blocks) // 3 for blocks in rows.values()} == {rounds}
    for block in (block for blocks in rows.values() for block in blocks):  # all are kept
        assert bool(block.state.throttled) == is_in(block.round + 1)


def test_the_remaining_time_is_estimated_from_the_first_round_on_and_shrinks():
    statuses: list[RoundStatus] = []
    session(SimulatedDevice(random.Random(0)), on_round=statuses.append)
    left_s = [status.remaining_s for status in statuses]
    assert left_s[0] > left_s[1] > left_s[-1] == 0
