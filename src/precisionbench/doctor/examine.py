"""Measures a machine: rates and clocks in this process, noise in fresh ones."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs
import torch

from precisionbench.analysis.variation import replicas as processes_of
from precisionbench.analysis.variation import run_spread, shared_rounds, within_sd
from precisionbench.backends.discovery import list_backends
from precisionbench.comparison import Comparison
from precisionbench.doctor import workloads
from precisionbench.doctor.checks import Check, checks_of
from precisionbench.doctor.readings import NoiseTrial, Readiness, Readings
from precisionbench.doctor.text import to_text
from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, SpecError
from precisionbench.measure import compare
from precisionbench.measure.options import MOST_REPLICAS
from precisionbench.measure.worker.guards import executing
from precisionbench.model.inputs import whole_number
from precisionbench.model.workload import usable_device
from precisionbench.probes import machine
from precisionbench.results import json_format
from precisionbench.results.progress import OnProgress, Progress, in_phase
from precisionbench.results.records import DeviceState
from precisionbench.system import environment, nvml
from precisionbench.system.memory import free_memory
from precisionbench.system.telemetry import watching
from precisionbench.torchtools.global_state import autocast_off, flags_restored, rng_restored
from precisionbench.torchtools.timer import clock_for

_REPLICAS = 3
_TRIAL_S = {"cuda": 12.0}
_TRIAL_ELSEWHERE_S = 8.0
_BATCH = {"cuda": 64}
_BATCH_ELSEWHERE = 2
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@attrs.frozen(slots=False)
class Examination:
    """What an examination found.

    Attributes:
        readings: every figure.
    """

    readings: Readings

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """One line for each thing looked at, with a verdict and a remedy."""
        return checks_of(self.readings)

    def to_json(self) -> str:
        """Readings and checks as JSON text."""
        document = {
            "format": "precisionbench.examination",
            "version": 1,
            "noise_floor": self.readings.noise_floor,
            "checks": json_format.unstructured(self.checks),
            "readings": json_format.unstructured(self.readings),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        return to_text(self.checks, self.readings.noise_floor)


def examine(
    device: Any = None,
    *,
    quick: bool = False,
    replicas: int = _REPLICAS,
    on_progress: OnProgress | None = None,
) -> Examination:
    """Measure this machine: what it can do, how well it can be measured, what stands in the way.

    Args:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`; None takes the current GPU, else the CPU.
        quick: leave out the A/A trials, which take about a minute.
        replicas: processes on each side of a trial, 2 or more.
        on_progress: called with a `Progress` at each step.

    Returns:
        The readings, and one check for each with a verdict and a remedy.

    Raises:
        WorkloadError: there is no such device.
        SpecError: `replicas` is no whole number of 2 or more.
    """
    number = whole_number(replicas, 2)
    if number is None or number > MOST_REPLICAS:
        most = MOST_REPLICAS
        raise SpecError(f"replicas is {replicas!r}", f"give a whole number from 2 to {most}")
    chosen = usable_device(device)
    if on_progress is not None:
        on_progress(Progress("", "looking", 0, 0, step="clocks, matmuls and copies"))
    readings = _readings(chosen)
    if not quick:
        free_memory()
        trials, trouble = _trials(chosen, replicas, on_progress)
        readings = attrs.evolve(readings, trials=trials, trouble=trouble)
    return Examination(readings)


def _readings(device: torch.device) -> Readings:
    load = _load()  # before our own work adds to it
    clock = clock_for(device)
    with _undisturbed(device), clock.active(), executing():
        step_s = machine.clock_step_s(clock)
        launch_s = machine.launch_s(device)
        rates, unknown = machine.rates(clock, device)
        state = _state_under_load(device, partial(machine.load, clock, device))
    return Readings(
        environment=environment.capture(device),
        clock=clock.name,
        clock_step_s=step_s,
        launch_s=launch_s,
        rates=rates,
        unknown=unknown,
        state=state,
        load=load,
        governor=_governor(),
        strangers=_other_processes(device),
        backends=tuple(
            Readiness(b.name, b.available, b.requirement, b.remedy) for b in list_backends()
        ),
    )


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever the caller has set in torch neither changes the figures nor is changed."""
    with rng_restored(), flags_restored(), autocast_off(device.type), torch.inference_mode():
        yield


def _state_under_load(device: torch.device, load: Callable[[], object]) -> DeviceState | None:
    with watching(device) as watch:
        watch.before()
        try:
            load()
        except FOREIGN_ERRORS:  # no memory for it, or no half matmul: the line then says unknown
            return None
        return watch.after()


def _load() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def _governor() -> str | None:
    with contextlib.suppress(OSError):
        return _GOVERNOR.read_text().strip()
    return None


def _other_processes(device: torch.device) -> tuple[str, ...] | None:
    """Who else computes on the GPU; None where the driver does not even list us."""
    with nvml.opened(device) as found:
        listed = nvml.processes(*found) if found else {}
    return tuple(nvml.other_processes(listed, [os.getpid()])) if listed else None


# --- noise ----------------------------------------------------------------------------------------


def _trials(
    device: torch.device, replicas: int, on_progress: OnProgress | None
) -> tuple[tuple[NoiseTrial, ...], str]:
    batch = _BATCH.get(device.type, _BATCH_ELSEWHERE)
    models: Mapping[str, Any] = {
        "device_bound": partial(workloads.convolutions, batch),
        "host_bound": workloads.many_small,
    }
    trials: list[NoiseTrial] = []
    for name, model in models.items():
        try:
            comparison = compare.compare(
                model,
                backends=["eager", "eager"],
                device=device,
                replicas=replicas,
                budget_s=_TRIAL_S.get(device.type, _TRIAL_ELSEWHERE_S),
                on_progress=in_phase(on_progress, f"noise, {name.replace('_', '-')}"),
                evidence=False,
            )
            trials.append(trial_of(name, comparison))
        except PrecisionBenchError as exc:
            return tuple(trials), f"it could not be measured ({exc})"
        if comparison["eager"].measurement.ended_by == "interrupted":
            return tuple(trials), "it was interrupted"
    return tuple(trials), ""


def trial_of(name: str, comparison: Comparison) -> NoiseTrial:
    """What a comparison of a row with itself says about noise.

    Args:
        name: of the trial.
        comparison: of `["eager", "eager"]`.

    Raises:
        PrecisionBenchError: one of the two rows failed.
    """
    first, second = comparison["eager"], comparison["eager#2"]
    rows = {row.backend: row.measurement.blocks for row in (first, second)}
    side_by_side = comparison.data.schedule == "rounds"
    return NoiseTrial(
        name=name,
        latency_s=first.latency.value,
        within=within_sd([*rows.values()]),
        between=run_spread(rows).sd if side_by_side else 0.0,
        processes=sum(len(processes_of(blocks)) for blocks in rows.values()),
        speedup=comparison.speedup("eager#2"),
        rounds=shared_rounds(*rows.values()),
        schedule=comparison.data.schedule,
    )
