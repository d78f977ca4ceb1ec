"""How many calls a block holds, and that blocks shrink where the budget is short."""

from __future__ import annotations

import math
import random

import attrs
import pytest

from precisionbench.measure.block_plan import plan_blocks, plan_warmup
from precisionbench.measure.rounds import warm_up
from precisionbench.measure.schedule import RowState, Schedule, least_rounds
from simulated_device import SimulatedBackend, SimulatedDevice


def row_states(call_s: float, clock: str = "fake", rows: int = 2, replicas: int = 3):
    class Known(SimulatedBackend):
        @property
        def opening(self):
            return attrs.evolve(super().opening, call_s=call_s, clock=clock)

    device = SimulatedDevice(random.Random(0))
    found = [RowState(str(i), [Known(device, call_s)] * replicas) for i in range(rows)]
    plan_warmup(found)
    return found


def planned(call_s: float, remaining_s: float, overhead_s: float = 0.0, **kind):
    found = row_states(call_s, **kind)
    plan_blocks(found, remaining_s, overhead_s)
    return found


def rounds_that_fit(found, remaining_s: float, overhead_s: float = 0.0) -> float:
    replicas = sum(len(row_state.replicas) for row_state in found)
    return remaining_s / (sum(row_state.block_s for row_state in found) + overhead_s * replicas)


@pytest.mark.parametrize(
    ("call_s", "samples", "settle"), [(0.01, 5, 2), (0.001, 50, 17), (0.1, 3, 1), (1.0, 3, 1)]
)
def test_a_block_has_its_usual_length_where_the_budget_allows_it(call_s, samples, settle):
    for row_state in planned(call_s, 1e6):
        assert (row_state.samples, row_state.settle_calls) == (samples, settle)


@pytest.mark.parametrize("call_s", [0.002, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("overhead_s", [0.0, 0.01])
def test_the_least_number_of_rounds_fits_in_a_short_budget(call_s, overhead_s):
    least = least_rounds(planned(call_s, 1e6))
    least_s = least * 6 * (2 * call_s + overhead_s)  # one settling call and one sample
    for share in (1.0, 1.5, 3.0):
        found = planned(call_s, share * least_s, overhead_s)
        assert rounds_that_fit(found, share * least_s, overhead_s) > least - 0.5


def test_a_block_of_one_sample_has_one_settling_call():
    for row_state in planned(0.5, 1.0):
        assert (row_state.samples, row_state.settle_calls) == (1, 1)


def test_on_the_hosts_clock_one_call_settles():
    assert {row_state.settle_calls for row_state in planned(0.001, 1e6, clock="host")} == {1}


def test_the_overhead_of_a_block_is_measured_during_warm_up():
    """Some drivers take 30 ms each time the state of the device is read."""
    device = SimulatedDevice(random.Random(0))

    class SlowTelemetry:
        def before(self) -> None:
            device.now_s += 0.03

        def after(self) -> None:
            pass

    found = [RowState("0", [SimulatedBackend(device, 0.01)] * 3)]
    telemetry = SlowTelemetry()
    rng = random.Random(0)
    schedule = Schedule(20.0, "0", rng, telemetry=telemetry, now=lambda: device.now_s)
    plan_warmup(found)
    assert warm_up(found, schedule, device.now_s) == pytest.approx(0.03, rel=0.05)


def test_blocks_are_as_long_as_usual_where_the_mean_call_is_far_above_the_typical_one():
    """As on a busy CPU, where a call of 1 ms waits for 30 ms now and then."""
    draw = random.Random(0)
    late = lambda rng: math.log(30) if rng.random() < 0.3 else 0.0  # noqa: E731
    device = SimulatedDevice(draw, noise=late)

    class Short(SimulatedBackend):
        @property
        def opening(self):
            return attrs.evolve(super().opening, call_s=0.001)

    found = [RowState("0", [Short(device, 0.001)] * 3)]
    schedule = Schedule(1e6, "0", draw, now=lambda: device.now_s)
    plan_warmup(found)
    warm_up(found, schedule, device.now_s)
    plan_blocks(found, 1e6, 0.0)
    assert found[0].block_s < 3 * 0.15
    assert 3 <= found[0].samples < 15
