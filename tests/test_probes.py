"""The passes beside the latency, on a fake clock; test_gpu.py has those on a GPU."""

from __future__ import annotations

import time

import pytest
import torch

from precisionbench.probes import timing
from precisionbench.probes.event_timing_checks import escapes
from precisionbench.probes.memory import peak_bytes
from precisionbench.probes.run_all import take_passes
from precisionbench.torchtools.timer import HostClock
from test_timer import FakeClock


@pytest.mark.parametrize(("call_s", "most"), [(0.0, 12), (0.06, 3)])
def test_a_long_call_is_made_a_few_times_only_to_see_if_events_can_time_it(call_s, most):
    """On an H200 a call of 4.8 s was made more than ten times for that."""
    calls = list[None]()

    def call() -> None:
        calls.append(None)
        time.sleep(call_s)

    assert not escapes(HostClock(torch.device("cpu")), call)
    assert len(calls) <= most


def test_a_sample_of_enqueue_and_wall_time_is_one_call_between_two_synchronizations():
    clock = FakeClock()
    timing.enqueue_and_wall(clock, clock.work(0.0), 1)
    assert clock.events == ["wait", "call", "wait"]


def test_the_enqueue_time_leaves_out_the_wait_for_the_device_which_the_wall_time_contains():
    class SlowDevice(FakeClock):
        def wait(self) -> None:
            time.sleep(0.02)

    enqueue_s, wall_s = timing.enqueue_and_wall(SlowDevice(), lambda: time.sleep(0.002), 2)
    assert min(enqueue_s) >= 0.002
    assert all(wall - enqueue >= 0.02 for enqueue, wall in zip(enqueue_s, wall_s, strict=True))


def test_wall_time_is_at_least_the_length_of_the_call():
    clock = HostClock(torch.device("cpu"))
    _, wall_s = timing.enqueue_and_wall(clock, lambda: time.sleep(0.002), 3)
    assert min(wall_s) >= 0.002


def test_passes_take_as_many_samples_as_fit_into_their_time():
    assert timing.samples_for(1e-4, 0.3) == 50
    assert timing.samples_for(0.01, 0.3) == 30
    assert timing.samples_for(10.0, 0.3) == 3


def test_an_unmeasurable_pass_has_no_samples_and_records_the_reason():
    def take() -> tuple[float, ...]:
        raise timing.UnmeasurableError("not capturable: it waits")

    unknown: dict[str, str] = {}
    assert timing.or_unknown(unknown, "graph", take) == ()
    assert unknown == {"graph": "not capturable: it waits"}
    assert timing.or_unknown(unknown, "device", lambda: (1.0,)) == (1.0,)


def test_peak_memory_is_unknown_on_a_cpu():
    assert peak_bytes(torch.device("cpu"), lambda: pytest.fail("called")) == (None, None)


def test_passes_that_are_skipped_or_unmeasurable_have_a_reason_and_no_samples():
    clock = HostClock(torch.device("cpu"))
    found = take_passes(clock, lambda: torch.ones(2), 0.1, ("sync_inside",), False, [])
    assert len(found.enqueue_s) == len(found.wall_s) == 3
    assert (found.device_s, found.to_device_s, found.to_host_s, found.graph_s) == ((), (), (), ())
    assert found.energy_j is found.peak_allocated_bytes is None
    assert list(found.unknown) == ["device", "graph", "energy", "transfers"]
    assert "sync_inside" in found.unknown["device"]
    assert "not tried in this process" in found.unknown["graph"]
