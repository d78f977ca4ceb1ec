"""What a run's own samples say about how far it can be trusted."""

from __future__ import annotations

import itertools
import math
import random

import attrs
import pytest

import precisionbench as pb
import simulated_device
from made_up_results import comparison_data
from precisionbench.analysis.data_quality import observations, unthrottled
from precisionbench.errors import PrecisionBenchError
from precisionbench.results import Block, ComparisonData, DeviceState, Measurement, Passes

ROUNDS = 20
CAPPED = DeviceState(throttled=("sw_power_cap",))


def run(rows: dict[str, list[Block]], **passes: object) -> ComparisonData:
    """A run of two rows, `eager` and `half`, with these blocks."""
    data = comparison_data(schedule="rounds")
    results = tuple(
        attrs.evolve(
            row,
            measurement=attrs.evolve(row.measurement, blocks=tuple(blocks)),
            passes=Passes(**passes),
        )
        for row, blocks in zip(data.results, rows.values(), strict=True)
    )
    return attrs.evolve(data, results=results)


def quiet(rounds: int = ROUNDS, seed: int = 0, factor=lambda round_: 1.0, state=lambda _: None):
    """Two rows of one replica in a random order per round, with little noise."""
    draw = random.Random(seed)
    rows: dict[str, list[Block]] = {"eager": [], "half": []}
    for round_ in range(rounds):
        for position, name in enumerate(draw.sample(list(rows), 2)):
            samples = [0.01 * factor(round_) * math.exp(draw.gauss(0, 1e-3)) for _ in range(5)]
            rows[name].append(Block(round_, position, 0, tuple(samples), state=state(round_)))
    return rows


def codes(data: ComparisonData, row: str = "half") -> list[str]:
    return [found.code for found in observations(data)[row]]


def test_a_row_whose_state_grows_is_not_said_to_be_slowed_by_heat():
    data = run(quiet(factor=lambda round_: 1 + round_ / 10))
    warned = [attrs.evolve(row, warnings=("model.seen grows with each call: ...",))
              for row in data.results]  # fmt: skip
    texts = [
        [one.text for one in observations(one)["half"] if one.code == "slowdown"]
        for one in (data, attrs.evolve(data, results=tuple(warned)))
    ]
    assert ["heat" in " ".join(text) for text in texts] == [True, False]
    assert texts[1][0].endswith(", because its state grows")


def test_a_quiet_run_has_no_observations():
    found = [codes(run(quiet(seed=seed))) for seed in range(100)]
    assert sum(map(bool, found)) <= 1


@pytest.mark.parametrize(
    ("factor", "code", "size"),
    [
        (lambda r: 1.06 if r < 5 else 1.0, "warmup", 0.057),
        (lambda r: 1.06 if r >= 15 else 1.0, "slowdown", 0.06),
        (lambda r: 1.06 if 8 <= r < 13 else 1.0, "no_steady_state", 0.06),
    ],
)
def test_changes_of_speed_are_classified(factor, code, size):
    found = observations(run(quiet(factor=factor)))["half"][0]
    assert found.code == code
    assert found.value == pytest.approx(size, abs=0.004)
    assert f"{found.value:.1%}" in found.text


def test_carryover_from_the_previous_row_is_detected():
    rows = quiet(40)
    order = sorted((b.round, b.position, name) for name in rows for b in rows[name])
    after_eager = {b[:2] for a, b in itertools.pairwise(order) if a[2] == "eager"}
    carried = [
        attrs.evolve(b, samples=tuple(s * 1.003 for s in b.samples))
        if (b.round, b.position) in after_eager
        else b
        for b in rows["half"]
    ]
    assert "carryover" in codes(run({**rows, "half": carried}))
    assert "carryover" not in codes(run(rows))


@pytest.mark.uncounted
def test_drift_is_not_reported_as_carryover():
    flagged = 0
    for seed in range(60):
        environment = (
            simulated_device.two_clock_states if seed % 2 else simulated_device.autocorrelated
        )
        found = simulated_device.session(
            simulated_device.SimulatedDevice(random.Random(seed), environment)
        )
        data = run({"eager": found["0"], "half": found["1"]})
        flagged += "carryover" in [*codes(data), *codes(data, "eager")]
    assert flagged <= 3


def test_outliers_are_counted():
    rows = quiet()
    spoiled = [attrs.evolve(b, samples=(*b.samples[:4], 0.05)) for b in rows["half"][:4]]
    found = observations(run({**rows, "half": [*spoiled, *rows["half"][4:]]}))["half"]
    (outliers,) = [one for one in found if one.code == "outliers"]
    assert outliers.text.startswith("4 of 100 samples are outliers")


def test_bimodal_samples_are_reported():
    rows = quiet()
    two = [attrs.evolve(b, samples=(0.01, 0.01, 0.011, 0.011, 0.01)) for b in rows["half"]]
    (found,) = observations(run({**rows, "half": two}))["half"]
    assert found.code == "bimodal"
    assert "modes 1.1x apart, 40% of the samples in the slower one" in found.text


def test_a_throttled_run_shows_the_speed_up_without_those_rounds():
    held = quiet(state=lambda round_: CAPPED if round_ < 6 else None)
    data = run(held)
    (found,) = observations(data)["half"]
    assert (found.code, found.value) == ("throttled", 0.3)
    assert "30% of its blocks (sw_power_cap); speed-up without these rounds" in found.text
    calm = unthrottled(data)
    assert calm is not None
    assert len(calm.results[0].measurement.rounds) == ROUNDS - 6
    assert "without these rounds" not in observations(data)["eager"][0].text


def test_a_run_throttled_throughout_has_no_rounds_without_it():
    data = run(quiet(state=lambda _: CAPPED))
    assert unthrottled(data) is None
    assert "too few rounds without throttling" in observations(data)["half"][0].text


@pytest.mark.parametrize(
    ("passes", "code"),
    [
        ({"device_s": (0.004,), "enqueue_s": (0.005,)}, "host_bound"),
        ({"graph_s": (0.004,), "enqueue_s": (0.0035,)}, "host_risk"),
    ],
)
def test_a_host_bound_row_is_reported_with_its_graph_time(passes, code):
    (found,) = observations(run(quiet(), **passes))["half"]
    assert found.code == code
    assert found.value == pytest.approx(passes["enqueue_s"][0] / 0.004)
    assert ("CUDA graph 4 ms" in found.text) == ("graph_s" in passes)


def test_a_row_as_fast_as_its_device_is_not_launch_bound_whatever_a_pass_of_its_own_took():
    half = pb.Comparison(run(quiet()))["half"].latency.value
    assert codes(run(quiet(), device_s=(half,), enqueue_s=(1.2 * half,))) == ["host_risk"]


def test_a_device_bound_row_has_no_observation():
    assert codes(run(quiet(), device_s=(0.01,), enqueue_s=(0.001,))) == []


def test_labels_of_the_clock_are_explained():
    labels = ("sync_inside", "stream_escape")
    assert codes(run(quiet(), labels=labels)) == list(labels)


def test_observations_are_shown_below_the_table_and_by_the_comparison():
    comparison = pb.Comparison(run(quiet(factor=lambda r: 1.06 if r >= 15 else 1.0)))
    assert [found.code for found in comparison.observations("half")] == ["slowdown", "one_process"]
    assert "became slower during the run (6.0%)" in " ".join(str(comparison).split())
    with pytest.raises(PrecisionBenchError):
        comparison.observations("apex-amp")


def test_one_row_alone_has_no_predecessors():
    rows = quiet()
    data = run(rows)
    alone = attrs.evolve(data, results=data.results[:1], failures=())
    assert codes(alone, "eager") == []
    assert isinstance(alone.results[0].measurement, Measurement)
