"""Energy over whole seconds, and other processes on the device: by a fake driver, and by files.

The real driver counts in test_gpu.py.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from types import SimpleNamespace

import pytest
import torch

from precisionbench.probes import energy
from precisionbench.probes.energy import device_joules, energy_j
from precisionbench.probes.timing import UnmeasurableError
from precisionbench.system import nvml
from precisionbench.torchtools.timer import HostClock

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture
def counter(monkeypatch):
    """Makes the driver count; its readings, in millijoules."""

    def make(*readings_mj: float) -> None:
        left = iter(readings_mj)
        library = SimpleNamespace(nvmlDeviceGetTotalEnergyConsumption=lambda _: next(left))
        opened = contextlib.nullcontext((library, "handle"))
        monkeypatch.setattr(energy.nvml, "opened", lambda _: opened)

    return make


def test_energy_is_measured_over_a_second_of_calls():
    calls = itertools.count()

    def joules_during(run):
        run()
        return 300.0

    found = energy_j(HostClock(CPU), lambda: next(calls), 0.01, joules_during)
    assert next(calls) == 100
    assert found == 3.0


def test_a_slow_call_is_made_once():
    assert energy_j(HostClock(CPU), lambda: None, 5.0, lambda run: 300.0) == 300.0


def test_energy_is_unmeasurable_without_a_counter():
    with pytest.raises(UnmeasurableError, match="does not tell"):
        energy_j(HostClock(CPU), lambda: None, 1.0, lambda run: None)


def test_the_drivers_counter_is_read_before_and_after(counter):
    counter(12_000, 12_500)
    assert device_joules(CUDA, lambda: None) == 0.5


def test_a_counter_that_does_not_advance_gives_no_energy(counter):
    counter(12_000, 12_000)
    assert device_joules(CUDA, lambda: None) is None


def test_without_a_driver_there_is_no_energy():
    assert device_joules(CPU, lambda: None) is None


def test_a_jetsons_power_is_integrated(jetson):
    begun_s = time.perf_counter()
    found = device_joules(CUDA, lambda: time.sleep(0.2), jetson)
    assert 28.5 * 0.2 <= found <= 28.5 * (time.perf_counter() - begun_s)


def test_a_jetson_without_power_monitors_gives_no_energy(jetson):
    (jetson / "sys/class/hwmon/hwmon3/name").unlink()
    assert device_joules(CUDA, lambda: time.sleep(0.05), jetson) is None


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
