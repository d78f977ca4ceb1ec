"""Calls are timed one by one, as many as it takes to see every Nth call."""

from __future__ import annotations

import pytest

from precisionbench.probes.call_times import slow_calls


class CountingClock:
    """A clock that the calls move, by a simulated time."""

    name, resolution_s, min_sample_s = "host", 1e-9, 1e-9

    def __init__(self) -> None:
        self.now_s = 0.0

    def marks(self, count):
        readings = []
        mark = lambda: readings.append(self.now_s)  # noqa: E731
        return [mark] * count, lambda: [readings[1] - readings[0]]


@pytest.mark.parametrize(("period", "enough"), [(10, 64), (40, 256)])
def test_every_nth_call_is_found_and_no_more_calls_are_made_than_that_takes(period, enough):
    clock, calls = CountingClock(), []

    def call() -> None:
        calls.append(1)
        clock.now_s += 3e-4 if len(calls) % period == 0 else 1e-4

    found = slow_calls(call, clock)["slow_calls"]
    assert found.period == period
    assert found.ratio == pytest.approx(3)
    assert len(calls) <= enough


def test_even_calls_are_not_made_again_and_again():
    clock, calls = CountingClock(), []

    def call() -> None:
        calls.append(1)
        clock.now_s += 1e-4

    assert slow_calls(call, clock)["slow_calls"] is None
    assert len(calls) == 64


def test_long_calls_end_the_series_in_time():
    clock = CountingClock()

    def call() -> None:
        clock.now_s += 2.0

    slow_calls(call, clock)
    assert clock.now_s == 2.0
