"""What the budget has no time for, and the note of it."""

from __future__ import annotations

import random

import pytest

from precisionbench.measure.schedule import RowState
from precisionbench.measure.time_budget import (
    ORDER,
    PROFILE,
    TimeBudget,
    seconds_after_rounds,
    without_time,
)
from simulated_device import CALL_S, ManualClock, SimulatedBackend, SimulatedDevice


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


def rows(count: int = 2) -> list[RowState]:
    backend = SimulatedBackend(SimulatedDevice(random.Random(0)), CALL_S)
    return [RowState(str(i), [backend] * 3) for i in range(count)]


def test_energy_and_transfers_are_left_out_first_and_passes_of_the_hosts_time_last():
    planned = dict.fromkeys(ORDER, 1.0)
    assert without_time(planned, 6.0) == ()
    assert without_time(planned, 4.0) == ("energy", "transfers")
    assert without_time(planned, 1.9) == ("energy", "transfers", "graph", PROFILE, "device")
    assert without_time(planned, -1.0) == ORDER


def test_passes_take_three_calls_at_least_and_are_on_a_gpu_only():
    short, long = (seconds_after_rounds([call_s], "cuda") for call_s in (0.001, 2.0))
    assert tuple(short) == ORDER
    assert long["energy"] == 6.0 > short["energy"]
    assert tuple(seconds_after_rounds([0.1], "cuda", ("energy",), profile=False)) == ("energy",)
    assert tuple(seconds_after_rounds([2.0], "cpu")) == (PROFILE,)
    assert seconds_after_rounds([2.0], "cpu", profile=False) == {}


def test_rounds_get_what_the_rest_does_not_need_and_half_at_least(clock):
    after_s = sum(seconds_after_rounds([CALL_S] * 2, "cuda").values())
    assert TimeBudget(100.0, "cuda", now=clock).rounds_s(rows()) == pytest.approx(100 - after_s)
    assert TimeBudget(2.0, "cuda", now=clock).rounds_s(rows()) == 1.0
    assert TimeBudget(2.0, "cuda", (), False, clock).rounds_s(rows()) == 2.0


def test_nothing_is_left_out_where_there_is_time(clock):
    budget = TimeBudget(100.0, "cuda", now=clock)
    clock.now_s += 50
    assert not budget.leave_out(rows(), rows())
    assert budget.note() == ""


def test_what_is_left_out_follows_from_the_time_that_is_left_and_stays_out(clock):
    budget = TimeBudget(20.0, "cuda", now=clock)
    clock.now_s += 22.0
    first = set(budget.leave_out(rows(), rows()))
    assert {"energy", "transfers"} < first < set(ORDER)
    clock.now_s -= 20
    assert set(budget.leave_out(rows(1), rows())) == first, "later rows have no more than the first"


def test_one_note_says_what_was_left_out_and_which_budget_would_do(clock):
    budget = TimeBudget(6.0, "cpu", now=clock)
    clock.now_s += 40
    budget.leave_out(rows(), rows())
    assert budget.note() == (
        "the budget of 6 s left no time for profiling; a budget of 45 s is enough"
    )
    half = TimeBudget(6.0, "cpu", now=clock, share=0.5)
    clock.now_s += 40
    half.leave_out(rows(), rows())
    assert "the budget of 12 s" in half.note()
    assert "a budget of 85 s is enough" in half.note()


def test_the_profile_of_the_last_rows_can_be_left_out(clock):
    budget = TimeBudget(6.0, "cuda", now=clock)
    budget.leave_out_profile([CALL_S])
    assert "no time for profiling" in budget.note()
