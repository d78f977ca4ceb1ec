"""The energy of a call, and other processes on the device: by a fake driver, and by files.

The real driver counts in test_gpu.py.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from precisionbench.probes import energy
from precisionbench.probes.energy import device_power_w, energy_j
from precisionbench.probes.timing import UnmeasurableError
from precisionbench.system import nvml
from precisionbench.torchtools.timer import HostClock

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture
def counter(monkeypatch):
    """Makes the driver count; its readings, in millijoules."""

    def make(readings_mj: Iterator[float]) -> None:
        left = iter(readings_mj)
        library = SimpleNamespace(nvmlDeviceGetTotalEnergyConsumption=lambda _: next(left))
        opened = contextlib.nullcontext((library, "handle"))
        monkeypatch.setattr(energy.nvml, "opened", lambda _: opened)

    return make


def test_energy_is_the_power_for_as_long_as_a_call_takes():
    calls = itertools.count()

    def call():
        next(calls)
        time.sleep(0.002)

    def power_during(run):
        time.sleep(0.3)  # the driver's library starts, which is no part of the calls
        run()
        return 300.0

    begun_s = time.perf_counter()
    found = energy_j(HostClock(CPU), call, 0.01, power_during)
    took_s = time.perf_counter() - begun_s - 0.3
    assert next(calls) == 50
    assert 300.0 * 0.002 <= found <= 300.0 * took_s / 50


def test_a_slow_call_is_made_once():
    calls = itertools.count()
    energy_j(HostClock(CPU), lambda: next(calls), 5.0, lambda run: run() or 300.0)
    assert next(calls) == 1


def test_energy_is_unmeasurable_without_a_counter():
    with pytest.raises(UnmeasurableError, match="does not report"):
        energy_j(HostClock(CPU), lambda: None, 1.0, lambda run: None)


def stepped(every_s: float, phase_s: float, idle_w: float, busy_w: float) -> list[energy.Reading]:
    """Readings, every 6 ms of half a second, of a counter that is brought up to date in steps."""

    def joules(at_s: float) -> float:
        last_s = math.floor((at_s - phase_s) / every_s) * every_s + phase_s
        return 1000.0 + (busy_w if last_s > 0 else idle_w) * last_s

    return [(0.006 * i, joules(0.006 * i)) for i in range(1, 84)]


@pytest.mark.parametrize("phase_s", [0.0, 0.017, 0.05, 0.083, 0.099])
@pytest.mark.parametrize("every_s", [0.02, 0.1])
def test_the_power_is_right_wherever_the_counters_steps_lie(every_s, phase_s):
    readings = stepped(every_s, phase_s, idle_w=120.0, busy_w=500.0)
    assert energy.counted_power_w(readings, 0.0) == pytest.approx(500.0, rel=0.05)


def test_a_counter_with_one_step_gives_the_power_since_the_first_reading():
    readings = [(0.0, 5.0), (0.2, 5.0), (0.4, 105.0), (0.5, 105.0)]
    assert energy.counted_power_w(readings, 0.0) == pytest.approx(200.0)


def test_a_counter_that_does_not_advance_gives_no_power():
    assert energy.counted_power_w([(0.0, 5.0), (0.5, 5.0)], 0.0) is None
    assert energy.counted_power_w([], 0.0) is None


def test_the_drivers_counter_is_read_while_calls_run(counter):
    counter(100.0 * number for number in itertools.count())
    power_w = device_power_w(CUDA, lambda: time.sleep(0.3))
    assert 0.1 / 0.1 <= power_w <= 1.1 * 0.1 / 0.005  # the last reading has no pause behind it


def test_without_a_driver_there_is_no_power():
    assert device_power_w(CPU, lambda: None) is None


def test_a_jetsons_power_is_the_mean_of_its_monitors(jetson):
    assert device_power_w(CUDA, lambda: time.sleep(0.2), jetson) == pytest.approx(28.5)


def test_a_jetson_without_power_monitors_gives_no_power(jetson):
    (jetson / "sys/class/hwmon/hwmon3/name").unlink()
    assert device_power_w(CUDA, lambda: time.sleep(0.05), jetson) is None


@pytest.mark.parametrize(
    ("listed", "ours", "other_processes"),
    [
        ({1: "python", 2: "python"}, [1, 2], []),
        ({1: "python", 7: "Xorg"}, [1], ["Xorg (process 7)"]),
        ({}, [1, 2], []),
        ({901: "python", 902: "python"}, [1, 2], []),
        ({901: "python", 902: "python", 903: "x"}, [1, 2], ["a process outside this container"]),
    ],
)
def test_other_processes_are_those_that_are_not_workers(listed, ours, other_processes):
    assert nvml.other_processes(listed, ours) == other_processes
