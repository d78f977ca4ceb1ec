"""Measures a machine in this process: rates, clocks, the state under load, and its environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from precisionbench.doctor.readings import Readiness, Readings
from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.measure.availability import list_backends
from precisionbench.measure.worker.guards import executing
from precisionbench.probes import machine
from precisionbench.results import DeviceState
from precisionbench.system import cpu_affinity, cpu_times, environment, nvml
from precisionbench.system.telemetry import open_telemetry
from precisionbench.torchtools.global_state import autocast_off, flags_restored, rng_restored
from precisionbench.torchtools.timer import clock_for

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def measure_readings(device: torch.device) -> Readings:
    """Measure all readings but the noise trials.

    Args:
        device: to measure.
    """
    load, before = cpu_times.load_average_per_core(), _cpu_times()  # before our own work adds to it
    clock = clock_for(device)
    with _default_state(device), clock.active(), executing():
        step_s = machine.clock_step_s(clock)
        launch_s = machine.launch_s(device)
        rates, unknown = machine.rates(clock, device)
        state = state_under_load(device, partial(machine.load, clock, device))
    return Readings(
        environment=environment.capture(device),
        clock=clock.name,
        clock_step_s=step_s,
        launch_s=launch_s,
        rates=rates,
        unknown=unknown,
        state=state,
        load=load,
        cpu=before.use_until(after) if before and (after := _cpu_times()) else None,
        governor=_governor(),
        strangers=other_processes(device),
        backends=tuple(
            Readiness(b.name, b.available, b.requirement, b.remedy) for b in list_backends()
        ),
    )


@contextlib.contextmanager
def _default_state(device: torch.device) -> Iterator[None]:
    """Measure independently of the caller's settings of torch, and restore them afterwards."""
    with rng_restored(), flags_restored(), autocast_off(device.type), torch.inference_mode():
        yield


def state_under_load(device: torch.device, load: Callable[[], object]) -> DeviceState | None:
    """The state of a device right after a load; None if it is unknown or the load fails.

    Args:
        device: to read.
        load: keeps it busy.
    """
    with open_telemetry(device) as telemetry:
        telemetry.before()
        try:
            load()
        except FOREIGN_ERRORS:  # no memory for it, or no half matmul
            return None
        return telemetry.after()


def _cpu_times() -> cpu_times.CpuTimes | None:
    return cpu_times.read_cpu_times(cpu_affinity.usable_cores())


def _governor() -> str | None:
    with contextlib.suppress(OSError):
        return _GOVERNOR.read_text().strip()
    return None


def other_processes(device: torch.device) -> tuple[str, ...] | None:
    """Other processes that compute on the GPU; None if the driver does not list processes.

    Args:
        device: the GPU.
    """
    listed = nvml.processes_on(device)
    return tuple(nvml.other_processes(listed, [os.getpid()])) if listed else None
