"""The interval of a row's latency covers run-to-run variance."""

from __future__ import annotations

import itertools
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
from precisionbench.results.grouping import samples_by_round
from precisionbench.results.latency import latency_interval, process_spread
from precisionbench.statistics import quantile_interval

pytestmark = pytest.mark.uncounted

ROUNDS, SAMPLES, SESSIONS = 12, 5, 1000
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
    steps = rng.normal(0, NOISE * math.sqrt(1 - phi * phi), ROUNDS * SAMPLES).tolist()
    steps[0] = rng.normal(0, NOISE)
    return np.array([*itertools.accumulate(steps, lambda before, step: phi * before + step)])


def process(rng: np.random.Generator, replica: int, noise, rounds: int = ROUNDS) -> list[Block]:
    """The blocks of a process whose level differs from 1 s by a factor of its own."""
    times = np.exp(rng.normal(0, SPREAD) + noise(rng)).reshape(ROUNDS, SAMPLES).tolist()
    return [Block(r, 0, replica, tuple(times[r])) for r in range(rounds)]


def session(rng: np.random.Generator, replicas: list[int], noise, rounds: int = ROUNDS):
    """The blocks of each row of a run; rows have these numbers of replicas."""
    return [[b for i in range(n) for b in process(rng, i, noise, rounds)] for n in replicas]


def coverage(
    replicas: list[int],
    noise,
    rounds: int = ROUNDS,
    noise_floor: float = 0.0,
    sessions: int = SESSIONS,
) -> float:
    """The share of sessions in which the last row's interval holds the true latency of 1 s."""
    rng, covered = np.random.default_rng(len(replicas) * 1000 + replicas[-1]), 0
    for _ in range(sessions):
        rows = session(rng, replicas, noise, rounds)
        interval = latency_interval(rows[-1], process_spread(rows), noise_floor)
        covered += interval.low <= 1 <= interval.high
    return covered / sessions


NOISES = [independent, heavy_tailed, bimodal, autocorrelated]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("replicas", [2, 3, 6])
def test_the_interval_covers_the_true_latency(replicas, noise):
    assert coverage([replicas], noise) >= 0.93


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("replicas", [[2, 2], [3, 3, 3]], ids=str)
def test_it_does_so_with_the_spread_pooled_over_rows(replicas, noise):
    assert coverage(replicas, noise, sessions=2 * SESSIONS) >= 0.93


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("replicas", "noise_floor"), [([3, 1], 0.0), ([3, 1], SPREAD)], ids=str)
def test_it_does_so_for_a_row_with_one_process(replicas, noise_floor, noise):
    assert coverage(replicas, noise, noise_floor=noise_floor) >= 0.93


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rounds", [2, 5])
@pytest.mark.parametrize("replicas", [[2], [3, 3]], ids=str)
def test_it_does_so_after_few_rounds(replicas, rounds, noise):
    assert coverage(replicas, noise, rounds) >= 0.93


def test_within_one_process_alone_it_would_not():
    """Without the variance between processes most of the sessions would miss the true latency."""
    rng = np.random.default_rng(0)
    rows = [session(rng, [3], independent)[0] for _ in range(SESSIONS // 10)]
    held = [quantile_interval(samples_by_round(row)) for row in rows]
    assert sum(one.low <= 1 <= one.high for one in held) < 0.5 * len(rows)


def test_the_spread_is_pooled_over_the_rows_of_a_run():
    levels = [(0.999, 1.001), (1.998, 2.002), (0.4995, 0.5005), (0.999, 1.001)]
    rows = [[Block(r, 0, i, (x,)) for r in range(12) for i, x in enumerate(row)] for row in levels]
    spread = process_spread(rows)
    assert spread.degrees == 4
    assert spread.sd == pytest.approx(0.002 / math.sqrt(2), rel=1e-3)
    alone, pooled = latency_interval(rows[0]), latency_interval(rows[0], spread)
    assert pooled.value == alone.value
    assert alone.relative_half_width == pytest.approx(12.71 * spread.sd / math.sqrt(2), rel=1e-2)
    assert pooled.relative_half_width == pytest.approx(2.776 * spread.sd / math.sqrt(2), rel=1e-2)


def test_an_interval_is_never_narrower_than_replicas_differ():
    """Each of two workers is steady, and they differ by a factor of 3."""
    blocks = [Block(r, 0, i, (level,)) for r in range(30) for i, level in enumerate((1.0, 3.0))]
    interval = latency_interval(blocks)
    assert interval.low < 1.0
    assert interval.high > 3.0


def test_a_quantile_between_two_samples_has_both_in_its_interval():
    interval = quantile_interval([[1.0, 3.0]] * 30)
    assert (interval.low, interval.high) == (1.0, 3.0)


def test_one_process_has_the_known_variance_of_the_device():
    blocks = [Block(r, 0, 0, (1.0, 1.0)) for r in range(12)]
    assert latency_interval(blocks).relative_half_width == 0
    known = latency_interval(blocks, noise_floor=0.0025)
    assert known.relative_half_width == pytest.approx(1.96 * 0.0025, rel=1e-3)


def measurement(blocks: list[Block], ended_by: str = "budget") -> Measurement:
    return Measurement("cuda_events", 0.0, 1, (Preparation(1.0, 0.1, 3),), tuple(blocks), ended_by)


def rows_of(
    levels: dict[str, list[float]], rounds: int, noise_floor: float = 0.0, noise: float = 1e-3
):
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
                    Block(r, 0, i, tuple(level * math.exp(rng.gauss(0, noise)) for _ in range(5)))
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


def test_few_rounds_are_the_reason_where_more_would_narrow_the_interval():
    data = rows_of({"eager": [1.0, 1.0], "half": [1.0, 1.0]}, rounds=2, noise=0.05)
    assert speedups(data)["half"].reason == "too_few_rounds"


def test_processes_are_the_reason_where_more_rounds_would_not():
    data = rows_of({"eager": [1.0, 1.2], "half": [1.1, 1.0]}, rounds=2)
    assert speedups(data)["half"].reason == "processes_differ"


def test_rounds_of_restarted_rows_are_processes():
    """Each round has a process of its own, so nothing is assumed of the variance between them."""
    levels = [1.0, 1.3, 0.8, 1.1, 0.9, 1.2, 1.0, 1.15]
    rows = tuple(
        BackendResult(
            name, name, {}, 8, measurement([Block(r, 0, 0, (x * f,)) for r, x in enumerate(levels)])
        )
        for name, f in (("eager", 1.0), ("half", 0.5))
    )
    data = comparison_data(results=rows, failures=(), reference="eager", schedule="restarts")
    row = data.results[0]
    assert row.process_spread.degrees == 14
    assert row.latency.value == pytest.approx(math.exp(np.mean(np.log(levels))))
    assert row.latency.relative_half_width > np.std(levels) / math.sqrt(len(levels))
    assert speedups(data)["half"].verdict is Verdict.FASTER


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


def test_one_process_beside_several_is_rarely_called_different():
    """The spread of the other row counts where it is larger than what is known of the device."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        levels = {"eager": [*rng.normal(1, 0.02, 3)], "half": [*rng.normal(1, 0.02, 1)]}
        found = speedups(rows_of(levels, rounds=12, noise_floor=0.0025))["half"]
        wrong += not found.low <= 1 <= found.high
    assert wrong <= 0.07 * 300
