"""How long blocks are, and that they become shorter where the time would not hold twelve rounds."""

from __future__ import annotations

import random

import attrs
import pytest

from precisionbench.measure import rounds
from worlds import PreparedBackend, World

ROUNDS = rounds.MIN_ROUNDS


def row_states(call_s: float, clock: str = "fake", rows: int = 2, replicas: int = 3):
    class Known(PreparedBackend):
        @property
        def opening(self):
            return attrs.evolve(super().opening, call_s=call_s, clock=clock)

    world = World(random.Random(0))
    found = [rounds.RowState(str(i), [Known(world, call_s)] * replicas) for i in range(rows)]
    rounds._plan_warmup(found)
    return found


def planned(call_s: float, remaining_s: float, overhead_s: float = 0.0, **kind):
    found = row_states(call_s, **kind)
    rounds._plan_blocks(found, remaining_s, overhead_s)
    return found


def rounds_that_fit(found, remaining_s: float, overhead_s: float = 0.0) -> float:
    replicas = sum(len(row_state.replicas) for row_state in found)
    return remaining_s / (sum(row_state.block_s for row_state in found) + overhead_s * replicas)


@pytest.mark.parametrize(
    ("call_s", "samples", "settle"), [(0.01, 5, 2), (0.001, 50, 17), (0.1, 5, 2), (1.0, 5, 2)]
)
def test_with_time_enough_a_block_is_as_long_as_it_should_be(call_s, samples, settle):
    for row_state in planned(call_s, 1e6):
        assert (row_state.samples, row_state.settle_calls) == (samples, settle)


@pytest.mark.parametrize("call_s", [0.002, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("overhead_s", [0.0, 0.01])
def test_with_little_time_twelve_rounds_still_fit(call_s, overhead_s):
    least_s = ROUNDS * 6 * (2 * call_s + overhead_s)  # one settling call and one sample
    for share in (1.0, 1.5, 3.0):
        found = planned(call_s, share * least_s, overhead_s)
        assert rounds_that_fit(found, share * least_s, overhead_s) > ROUNDS - 0.5


def test_a_block_that_was_cut_has_no_more_settling_calls_than_it_needs():
    for row_state in planned(0.5, 1.0):
        assert (row_state.samples, row_state.settle_calls) == (1, 1)


def test_on_the_hosts_clock_one_call_settles():
    assert {row_state.settle_calls for row_state in planned(0.001, 1e6, clock="host")} == {1}


def test_what_a_block_takes_beside_its_calls_is_seen_in_warm_up():
    """A look at the device that takes 30 ms each time, as some drivers' do."""
    world = World(random.Random(0))

    class SlowWatch:
        def before(self) -> None:
            world.now_s += 0.03

        def after(self) -> None:
            pass

    found = [rounds.RowState("0", [PreparedBackend(world, 0.01)] * 3)]
    rules = rounds.Schedule(20.0, "0", random.Random(0), watch=SlowWatch(), now=lambda: world.now_s)
    rounds._plan_warmup(found)
    assert rounds._warm_up(found, rules, world.now_s) == pytest.approx(0.03, rel=0.05)
