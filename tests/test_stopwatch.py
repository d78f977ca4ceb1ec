"""`with pb.time()` and `@pb.time()`: what a program does is timed as it is, and never repeated."""

from __future__ import annotations

import time

import pytest

import precisionbench as pb
from precisionbench.errors import MeasurementError, SpecError
from precisionbench.measure.calls.stopwatch import Stopwatch, TimedCall
from precisionbench.torchtools.regions import HostRegions


class FakeHost:
    """The host's clock and the wait for a device, both recorded."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.waits = 0

    def wait(self) -> None:
        self.waits += 1

    def regions(self) -> HostRegions:
        return HostRegions(self.wait, lambda: self.now_ns)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


# --- regions --------------------------------------------------------------------------------------


def test_a_region_is_timed_once_with_the_device_idle_before_and_after(host):
    with Stopwatch(regions=host.regions()) as region:
        assert host.waits == 1
        host.now_ns += 5_000_000
    assert host.waits == 2
    assert region.seconds == pytest.approx(5e-3)


def test_a_stopwatch_is_used_again_and_keeps_all_regions(host):
    stopwatch = Stopwatch(regions=host.regions(), name="step")
    for milliseconds in (9, 1, 2, 3):
        with stopwatch:
            host.now_ns += milliseconds * 1_000_000
    assert stopwatch.seconds == pytest.approx(3e-3)
    assert stopwatch.times.name == "step"
    assert stopwatch.times.first_call_s == pytest.approx(9e-3)
    assert stopwatch.times.samples == pytest.approx((1e-3, 2e-3, 3e-3))


def test_regions_are_nested(host):
    stopwatch = Stopwatch(regions=host.regions())
    with stopwatch:
        host.now_ns += 1_000_000
        with stopwatch:
            host.now_ns += 2_000_000
        assert stopwatch.seconds == pytest.approx(2e-3)
    assert stopwatch.seconds == pytest.approx(3e-3)


def test_a_region_that_failed_has_no_time(host):
    stopwatch = Stopwatch(regions=host.regions())
    with pytest.raises(ZeroDivisionError), stopwatch:
        _ = 1 / 0
    with pytest.raises(MeasurementError, match="region has not been timed yet; run it first"):
        _ = stopwatch.seconds


def test_one_region_has_no_interval_and_a_note():
    with pb.time(name="load") as region:
        time.sleep(0.01)
    assert region.seconds >= 0.01
    assert "load: 1" in str(region.times)
    assert "one sample, so without an interval" in str(region.times)
    assert region.times.warnings == ("one call only: it may include imports and compilation",)


# --- decorated functions --------------------------------------------------------------------------


def test_a_decorated_function_is_called_as_often_as_before(host):
    calls = []

    def add(a: int, b: int = 1) -> int:
        """Add."""
        calls.append((a, b))
        host.now_ns += 1000
        return a + b

    timed = TimedCall(add, regions=host.regions())
    assert [timed(1), timed(1, 2), timed(1, b=3)] == [2, 3, 4]
    assert calls == [(1, 1), (1, 2), (1, 3)]
    assert (timed.__name__, timed.__doc__) == ("add", "Add.")
    assert timed.times.samples == pytest.approx((1e-6, 1e-6))  # the first call is apart


def test_a_call_that_raises_has_no_time_and_its_own_error(host):
    @pb.time()
    def broken(fails: bool) -> None:
        if fails:
            raise ValueError("as before")

    with pytest.raises(ValueError, match="as before"):
        broken(True)
    with pytest.raises(MeasurementError, match="has not been timed yet"):
        _ = broken.times
    broken(False)
    assert len(broken.times.samples) == 1


def test_methods_are_decorated_too():
    class Model:
        def __init__(self, scale: int) -> None:
            self.scale = scale

        @pb.time()
        def forward(self, x: int) -> int:
            return self.scale * x

    assert [Model(2).forward(3), Model(3).forward(3)] == [6, 9]
    assert Model.forward.times.name == "Model.forward"
    assert Model.forward.times.clock == "host"


def test_many_calls_form_a_hundred_rounds():
    @pb.time()
    def nothing() -> None:
        pass

    for _ in range(1002):
        nothing()
    found = nothing.times
    assert len(found.samples) == 1001
    assert len(found.blocks) <= 100
    assert "1,001 samples of one call each" in str(found)
    assert "replicas" not in found.covers


async def _coroutine() -> None:
    pass


def _generator():
    yield 1


@pytest.mark.parametrize("function", [_coroutine, _generator])
def test_a_function_whose_calls_return_before_they_run_is_refused(function):
    with pytest.raises(SpecError, match="return before they run; time a region within it"):
        pb.time()(function)


def test_recorded_times_are_saved_like_measured_ones(host, tmp_path):
    timed = TimedCall(host.wait, regions=host.regions())
    for _ in range(3):
        host.now_ns += 1
        timed()
    with Stopwatch(regions=host.regions()) as region:
        host.now_ns += 7_000_000
    region.times.save(tmp_path / "region.json")
    assert pb.load(tmp_path / "region.json")["region"].latency.value == pytest.approx(7e-3)
