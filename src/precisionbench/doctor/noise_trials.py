"""Measures noise: compares small models with themselves, in fresh processes (A/A trials)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from precisionbench.analysis.variation import replicas as processes_of
from precisionbench.analysis.variation import run_spread, shared_rounds, within_sd
from precisionbench.comparison import Comparison
from precisionbench.doctor import workloads
from precisionbench.doctor.readings import NoiseTrial
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.compare import compare as compare_backends
from precisionbench.results.progress import OnProgress, in_phase

_BUDGET_S = {"cuda": 12.0}
_BUDGET_ELSEWHERE_S = 8.0
_BATCH = {"cuda": 64}
_BATCH_ELSEWHERE = 2


def noise_trials(
    device: torch.device,
    replicas: int,
    on_progress: OnProgress | None,
    compare: Callable[..., Comparison] = compare_backends,
) -> tuple[tuple[NoiseTrial, ...], str]:
    """Compare a device-bound and a host-bound model with themselves.

    Args:
        device: to measure.
        replicas: processes on each side.
        on_progress: called with a `Progress` at each step.
        compare: measures a comparison.

    Returns:
        The trials, and why one of them is missing; empty if none is.
    """
    batch = _BATCH.get(device.type, _BATCH_ELSEWHERE)
    models: Mapping[str, Any] = {
        "device_bound": partial(workloads.convolutions, batch),
        "host_bound": workloads.many_small,
    }
    trials: list[NoiseTrial] = []
    for name, model in models.items():
        try:
            comparison = compare(
                model,
                backends=["eager", "eager"],
                device=device,
                replicas=replicas,
                budget_s=_BUDGET_S.get(device.type, _BUDGET_ELSEWHERE_S),
                on_progress=in_phase(on_progress, f"noise, {name.replace('_', '-')}"),
                evidence=False,
                effort="thorough",  # its rounds are many enough to see the noise within a process
            )
            trials.append(noise_trial(name, comparison))
        except PrecisionBenchError as exc:
            return tuple(trials), f"could not be measured ({exc})"
        if comparison["eager"].measurement.ended_by == "interrupted":
            return tuple(trials), "interrupted"
    return tuple(trials), ""


def noise_trial(name: str, comparison: Comparison) -> NoiseTrial:
    """The noise that a comparison of a backend with itself shows.

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
