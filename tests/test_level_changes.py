"""Where a short series changes its level, and where a rising curve crosses 0."""

from __future__ import annotations

import math
import random

import pytest

from made_up_results import recorded
from precisionbench.analysis.history import RunLevel, run_variances
from precisionbench.results.latency import replica_levels
from precisionbench.statistics.crossing import crossing
from precisionbench.statistics.level_changes import level_changes

NOISE = 0.004  # standard deviation of a value


def values(seed: int, *levels: float, noise: float = NOISE) -> list[float]:
    draw = random.Random(seed)
    return [level + draw.gauss(0, noise) for level in levels]


def positions(series: list[float], noise: float = NOISE) -> list[int]:
    return [one.position for one in level_changes(series, [noise**2] * len(series))]


@pytest.mark.uncounted
@pytest.mark.parametrize("place", range(1, 10))
def test_a_change_of_3_percent_is_found_at_its_place(place):
    levels = [0.03 * (number >= place) for number in range(10)]
    found = [positions(values(seed, *levels)) for seed in range(50)]
    assert found.count([place]) >= 45


def test_a_change_that_is_undone_is_two_changes():
    found = [positions(values(seed, *[0.0] * 4, *[0.03] * 3, *[0.0] * 3)) for seed in range(50)]
    assert found.count([4, 7]) >= 45


def test_a_single_outlier_within_the_series_is_no_change():
    assert positions(values(1, *[0.0] * 5, 0.03, *[0.0] * 4)) == []


@pytest.mark.uncounted
@pytest.mark.parametrize("hidden", [0.0, 0.01])
def test_equal_values_have_few_false_alarms_even_if_they_vary_more_than_known(hidden):
    draw = random.Random(0)
    series = [[draw.gauss(0, math.hypot(NOISE, hidden)) for _ in range(10)] for _ in range(1000)]
    assert sum(bool(positions(one)) for one in series) <= 50


def test_values_that_agree_by_chance_are_no_changes():
    assert positions([0.0, 0.0, 0.0, 0.0, 1e-5, 1e-5, 1e-5, 1e-5]) == []


def test_the_interval_of_a_change_contains_its_size():
    found = [level_changes(values(s, *[0.0] * 5, *[0.03] * 5), [NOISE**2] * 10) for s in range(200)]
    intervals = [one.difference for changes in found for one in changes if one.position == 5]
    assert len(intervals) > 190
    assert sum(one.low <= 0.03 <= one.high for one in intervals) >= 0.95 * len(intervals)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_values_show_no_change(count):
    assert positions([0.0, 1.0, 1.0][:count]) == []


@pytest.mark.uncounted
@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param("resnet50-five", "half", marks=pytest.mark.slow),
        ("resnet50-five", "eager"),
        ("mlp", "half"),
    ],
)
def test_1000_histories_with_the_spread_of_recorded_processes_have_at_most_5_percent_false_alarms(
    name, row
):
    """Ten runs of three processes each, which vary as the processes of a recorded run."""
    data = recorded(name)
    spread = data.results[0].process_spread
    assert spread is not None
    sd = max(spread.sd, data.noise_floor)
    processes = len(
        replica_levels(next(r for r in data.results if r.backend == row).measurement.blocks)
    )
    draw = random.Random(name + row)
    false = 0
    for _ in range(1000):
        levels = [_simulated_run(draw, sd, max(2, processes)) for _ in range(10)]
        variances = run_variances(levels, data.noise_floor)
        false += bool(level_changes([one.level for one in levels], variances))
    assert false <= 50


def _simulated_run(draw: random.Random, sd: float, processes: int) -> RunLevel:
    drawn = [draw.gauss(0, sd) for _ in range(processes)]
    level = sum(drawn) / processes
    squares = sum((x - level) ** 2 for x in drawn)
    return RunLevel(level, squares, processes - 1, 1 / processes, 1e-6)


# Crossings


SIZES = [math.log(2**n) for n in range(7)]
AT = math.log(6)


def test_the_interval_of_a_crossing_contains_it():
    found = []
    for seed in range(200):
        curve = values(seed, *(0.25 * (x - AT) for x in SIZES), noise=0.1)
        found.append(crossing(SIZES, curve, [0.1] * len(SIZES)))
    held = [(one.low or -math.inf) <= AT <= (one.high or math.inf) for one in found]
    assert sum(held) >= 0.93 * len(held)


def test_a_curve_without_noise_crosses_where_its_line_does():
    found = crossing([0.0, 1.0, 2.0], [-1.0, -0.5, 0.5], [0.0] * 3)
    assert found.value == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_a_curve_on_one_side_has_no_crossing(level):
    found = crossing([0.0, 1.0, 2.0], [level] * 3, [0.1] * 3)
    assert (found.value, found.low, found.high) == (None, None, None)


def test_an_end_beyond_the_measured_places_is_open():
    found = crossing([0.0, 1.0], [-0.05, 1.0], [0.1, 0.1])
    assert found.value is not None
    assert found.low is None
    assert found.high is not None
