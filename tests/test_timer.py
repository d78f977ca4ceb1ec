"""The Timer on a fake clock, and on the host's."""

from __future__ import annotations

import contextlib
import gc
import time

import pytest
import torch

from precisionbench.errors import MeasurementError
from precisionbench.torchtools.timer import HostClock, Timer, clock_for


class FakeClock:
    """A clock that only calls advance; it records what happens."""

    name = "fake"
    resolution_s = 1e-9
    min_sample_s = 200e-6

    def __init__(self) -> None:
        self.now_s = 100.0
        self.events: list[str] = []

    def work(self, seconds: float):
        def call() -> None:
            self.events.append("call")
            self.now_s += seconds

        return call

    def marks(self, count):
        self.events.append(f"make {count}")
        readings: list[float] = []

        def mark() -> None:
            self.events.append("mark")
            readings.append(self.now_s)

        def read() -> list[float]:
            self.events.append("read")
            return [end - start for start, end in zip(readings[::2], readings[1::2], strict=True)]

        return [mark] * count, read

    def wait(self) -> None:
        self.events.append("wait")

    def active(self):
        return contextlib.nullcontext()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_block_is_mark_call_mark_with_one_read_at_its_end(clock):
    samples = Timer(clock).block(clock.work(0.5), samples=2)
    assert samples == (0.5, 0.5)
    assert clock.events == ["make 4", "mark", "call", "mark", "mark", "call", "mark", "read"]


def test_settling_calls_come_before_the_first_mark_and_are_not_timed(clock):
    durations = iter([9.0, 9.0, 1.0, 1.0])

    def call() -> None:
        clock.work(next(durations))()

    assert Timer(clock).block(call, samples=2, settle_calls=2) == (1.0, 1.0)
    assert clock.events[:4] == ["make 4", "call", "call", "mark"]


def test_short_calls_share_a_sample(clock):
    timer = Timer(clock)
    assert timer.calls_per_sample(1e-3) == 1
    assert timer.calls_per_sample(30e-6) == 7
    assert timer.calls_per_sample(0.0) == 200_000
    (sample,) = timer.block(clock.work(30e-6), samples=1, calls_per_sample=7)
    assert sample == pytest.approx(30e-6)


def test_garbage_collection_is_off_in_a_block_and_restored_afterwards(clock):
    seen = []
    Timer(clock).block(lambda: (seen.append(gc.isenabled()), clock.work(1.0)()), samples=3)
    assert seen == [False] * 3
    assert gc.isenabled()
    gc.disable()
    try:
        Timer(clock).block(clock.work(1.0), samples=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_garbage_collection_is_restored_after_an_error(clock):
    with pytest.raises(ZeroDivisionError):
        Timer(clock).block(lambda: 1 / 0, samples=1)
    assert gc.isenabled()


def test_a_clock_that_stands_still_is_an_error(clock):
    with pytest.raises(MeasurementError, match="'fake' read 0.0 s for a sample of 3 calls"):
        Timer(clock).block(clock.work(0.0), samples=2, calls_per_sample=3)


def test_one_call_is_timed_with_the_device_idle_before_and_after(clock):
    result, seconds = Timer(clock).once(lambda: time.sleep(0.02) or "out")
    assert result == "out"
    assert 0.02 <= seconds < 20  # milliseconds would be 20 at least
    assert clock.events == ["wait", "wait"]


def test_the_host_clock_measures_a_sleep():
    clock = clock_for(torch.device("cpu"))
    assert isinstance(clock, HostClock)
    with clock.active():
        clock.wait()
        samples = Timer(clock).block(lambda: time.sleep(0.01), samples=3)
    assert len(samples) == 3
    assert min(samples) >= 0.01


def test_a_block_on_the_hosts_clock_ends_early_where_calls_have_become_slow():
    timer = Timer(HostClock(torch.device("cpu")))
    samples = timer.block(lambda: time.sleep(0.01), 1000, limit_s=0.05)
    assert 1 <= len(samples) <= 6
    assert min(samples) >= 0.01
    assert len(timer.block(lambda: time.sleep(0.01), 1000, limit_s=0.0)) == 1


def test_samples_of_the_host_clock_are_at_least_a_hundred_readings_long():
    clock = HostClock(torch.device("cpu"))
    assert 0 < clock.resolution_s < 1e-4
    assert clock.min_sample_s == 100 * clock.resolution_s
