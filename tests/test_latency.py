"""The interval of a row's latency covers run-to-run variance."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from made_up_results import comparison_data
from precisionbench.analysis.speedups import speedups
from precisionbench.report.rows import ratio_texts
from precisionbench.results import (
    BackendResult,
    Block,
    Measurement,
    Preparation,
    Speedup,
    Verdict,
)
from precisionbench.results.latency import latency_interval, process_spread
from precisionbench.statistics import quantile_interval

ROUNDS, SAMPLES = 12, 5
SPREAD = 0.003  # sd of the log between processes
NOISE = 0.002


def independent(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, NOISE, ROUNDS * SAMPLES)


def heavy_tailed(rng: np.random.Generator) -> np.ndarray:
    return NOISE * rng.standard_t(2.5, ROUNDS * SAMPLES)


def bimodal(rng: np.random.Generator) -> np.ndarray:
    return 3 * NOISE * (rng.random(ROUNDS * SAMPLES) < 0.3)


def autocorrelated(rng: np.random.Generator) -> np.ndarray:
    """AR(1) with a correlation length of 20 samples."""
    phi = math.exp(-1 / 20)
    steps = rng.normal(0, NOISE * math.sqrt(1 - phi * phi), ROUNDS * SAMPLES)
    values = [rng.normal(0, NOISE)]
    for step in steps[1:]:
        values.append(phi * values[-1] + step)
    return np.array(values)


def measurement(blocks: list[Block]) -> Measurement:
    return Measurement("cuda_events", 0.0, 1, (Preparation(1.0, 0.1, 3),), tuple(blocks), "target")


def process(rng: np.random.Generator, replica: int, noise) -> list[Block]:
    """The blocks of a process whose level differs from 1 s by a factor of its own."""
    times = np.exp(rng.normal(0, SPREAD) + noise(rng)).reshape(ROUNDS, SAMPLES)
    return [Block(r, 0, replica, tuple(map(float, times[r]))) for r in range(ROUNDS)]


@pytest.mark.parametrize("noise", [independent, heavy_tailed, bimodal, autocorrelated])
@pytest.mark.parametrize("replicas", [2, 3, 6])
def test_the_interval_covers_the_true_latency(replicas, noise):
    rng, sessions = np.random.default_rng(replicas), 1000
    covered = 0
    for _ in range(sessions):
        row = measurement([b for i in range(replicas) for b in process(rng, i, noise)])
        interval = latency_interval(row)
        covered += interval.low <= 1 <= interval.high
    assert covered >= 0.93 * sessions


def test_the_spread_is_pooled_over_the_rows_of_a_run():
    rng = np.random.default_rng(1)
    rows = [
        measurement([b for i in range(2) for b in process(rng, i, independent)]) for _ in range(4)
    ]
    spread = process_spread(rows)
    assert spread.degrees == 4
    alone, pooled = latency_interval(rows[0]), latency_interval(rows[0], spread)
    assert pooled.value == alone.value
    assert pooled.relative_half_width < 0.01


def test_an_interval_is_never_narrower_than_replicas_differ():
    """Each of two workers is steady, and they differ by a factor of 3."""
    blocks = [Block(r, 0, i, (level,)) for r in range(30) for i, level in enumerate((1.0, 3.0))]
    interval = latency_interval(measurement(blocks))
    assert interval.low < 1.0
    assert interval.high > 3.0


def test_a_quantile_between_two_samples_has_both_in_its_interval():
    interval = quantile_interval([[1.0, 3.0]] * 30)
    assert (interval.low, interval.high) == (1.0, 3.0)


def test_one_process_has_the_known_variance_of_the_device():
    blocks = [Block(r, 0, 0, (1.0, 1.0)) for r in range(12)]
    assert latency_interval(measurement(blocks)).relative_half_width == 0
    known = latency_interval(measurement(blocks), noise_floor=0.0025)
    assert known.relative_half_width == pytest.approx(1.96 * 0.0025, rel=1e-3)


def rows_of(levels: dict[str, list[float]], rounds: int, noise_floor: float = 0.0):
    """A comparison of rows whose replicas have these levels, with a little noise."""
    rng = random.Random(0)
    results = tuple(
        BackendResult(
            name,
            name,
            {},
            8,
            measurement(
                [
                    Block(r, 0, i, tuple(level * math.exp(rng.gauss(0, 1e-3)) for _ in range(5)))
                    for r in range(rounds)
                    for i, level in enumerate(replicas)
                ]
            ),
        )
        for name, replicas in levels.items()
    )
    return comparison_data(
        results=results, failures=(), reference="eager", schedule="rounds", noise_floor=noise_floor
    )


def test_a_clear_difference_needs_few_rounds():
    data = rows_of({"eager": [1.0, 1.02], "half": [24.0, 24.4]}, rounds=2)
    assert speedups(data)["half"].verdict is Verdict.SLOWER


def test_few_rounds_are_the_reason_where_the_interval_holds_1():
    data = rows_of({"eager": [1.0, 1.2], "half": [1.1, 1.0]}, rounds=2)
    assert speedups(data)["half"].reason == "too_few_rounds"


def test_one_process_of_each_row_has_no_verdict_unless_the_variance_is_known():
    levels = {"eager": [1.0], "half": [0.5]}
    unknown = speedups(rows_of(levels, rounds=12))["half"]
    assert (unknown.verdict, unknown.reason) == (Verdict.INCONCLUSIVE, "one_process")
    known = speedups(rows_of(levels, rounds=12, noise_floor=0.0025))["half"]
    assert known.verdict is Verdict.FASTER


def test_an_interval_of_no_use_is_not_printed_in_full():
    data = rows_of({"eager": [1.0, 4.0], "half": [1.0, 6.0]}, rounds=12)
    speedup = speedups(data)["half"]
    assert speedup.reason == "processes_differ"
    _, low, high = ratio_texts(Speedup(1.0, 1e-9, 2e5, Verdict.INCONCLUSIVE, "processes_differ"))
    assert (low, high) == ("<0.01", ">100")


def test_latency_and_throughput_have_the_same_interval():
    row = rows_of({"eager": [1.0, 1.02], "half": [0.5, 0.51]}, rounds=12).results[1]
    assert row.throughput.value == pytest.approx(8 / row.latency.value)
    assert row.throughput.relative_half_width == pytest.approx(
        row.latency.relative_half_width, rel=0.1
    )
