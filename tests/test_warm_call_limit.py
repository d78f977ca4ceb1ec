"""A row whose warm calls take far longer than those of the leader is ended by its first calls."""

from __future__ import annotations

import time

import pytest
import torch._dynamo.utils as dynamo

from precisionbench.errors import SlowCallError
from precisionbench.measure.worker.first_call_limit import FirstCallLimit, WarmCallLimit
from precisionbench.measure.worker.first_calls import warm_up
from precisionbench.torchtools.timer import Timer
from test_timer import FakeClock

LIMIT = WarmCallLimit("half", 6.6e-3)


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    found = FakeClock()
    monkeypatch.setattr(time, "perf_counter", lambda: found.now_s)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(found.now_s * 1e9))
    return found


def takes(clock: FakeClock, *seconds: float):
    """A call that takes these seconds one after the other, and then the last ones."""
    left = list(seconds)

    def call() -> None:
        clock.now_s += left.pop(0) if len(left) > 1 else left[0]

    return call


def test_one_call_of_seconds_is_enough(clock):
    with pytest.raises(SlowCallError) as caught:
        warm_up(takes(clock, 4.8), Timer(clock), LIMIT)
    assert str(caught.value) == (
        "a call takes 4.8 s, more than 10 times as long as one of half (6.6 ms)"
    )
    assert clock.now_s == pytest.approx(100.0 + 4.8)


def test_calls_that_compile_may_take_any_time(clock, monkeypatch):
    monkeypatch.setitem(dynamo.counters["stats"], "unique_graphs", 0)
    quick, slow = takes(clock, 7e-3), takes(clock, 30.0, 20.0)

    def call() -> None:
        is_compiled = dynamo.counters["stats"]["unique_graphs"] >= 2
        dynamo.counters["stats"]["unique_graphs"] += not is_compiled
        (quick if is_compiled else slow)()

    end_s = warm_up(call, Timer(clock), LIMIT).call_s
    assert end_s == pytest.approx(7e-3, rel=0.1)


def test_a_call_that_other_processes_delay_is_no_reason(clock):
    assert warm_up(takes(clock, 0.3, 7e-3, 0.4, 7e-3), Timer(clock), LIMIT).call_s < 0.01


def test_calls_that_cost_little_are_measured_however_quick_the_leader_is(clock):
    found = warm_up(takes(clock, 0.2), Timer(clock), WarmCallLimit("half", 1e-5))
    assert found.call_s == pytest.approx(0.2, rel=0.01)


def test_rows_that_are_prepared_side_by_side_may_take_longer(clock):
    call = takes(clock, 1.0)
    beside = WarmCallLimit("eager", 0.05, together=6)
    assert warm_up(call, Timer(clock), beside).call_s == pytest.approx(1.0, rel=0.01)
    with pytest.raises(SlowCallError, match=r"more than 10 times as long as one of eager"):
        warm_up(call, Timer(clock), WarmCallLimit("eager", 0.05))


def test_without_a_limit_a_call_may_take_any_time(clock):
    assert warm_up(takes(clock, 4.8), Timer(clock)).call_s == pytest.approx(4.8, rel=0.01)


@pytest.mark.parametrize(
    ("limit", "limit_s"),
    [
        (FirstCallLimit("eager", 0.01), 2.0),
        (FirstCallLimit("eager", 0.5), 5.0),
        (FirstCallLimit("eager", 0.5, reference_first_call_s=20.0), 60.0),  # it compiles in it
        (FirstCallLimit("eager", 0.01, together=6), 12.0),
        (FirstCallLimit("eager", 0.01, device_type="cuda"), 10.0),  # it chooses kernels
        (FirstCallLimit("eager", 0.01, together=6, device_type="cuda"), 12.0),
    ],
)
def test_a_first_call_may_take_as_long_as_that_of_the_reference_explains(limit, limit_s):
    assert limit.limit_s == pytest.approx(limit_s)
