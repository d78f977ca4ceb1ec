"""Examines a machine: takes readings, measures the noise, and checks both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import attrs
import torch

from precisionbench._internal.numbers import whole_number
from precisionbench.display import TableResult
from precisionbench.doctor.checks import MachineCheck, checks_of
from precisionbench.doctor.machine_readings import measure_readings
from precisionbench.doctor.noise_trials import noise_trials
from precisionbench.doctor.readings import Readings
from precisionbench.doctor.text import summary_lines, to_text
from precisionbench.errors import SpecError
from precisionbench.measure.options import MOST_REPLICAS
from precisionbench.model.workload import usable_device
from precisionbench.report.progress import shown
from precisionbench.results import json_format
from precisionbench.results.progress import OnProgress, OnProgressOption, Progress
from precisionbench.system.memory import free_memory

_REPLICAS = 3


@attrs.frozen(slots=False, repr=False)
class Examination(TableResult):
    """The result of examining a machine.

    Attributes:
        readings: everything measured.
    """

    readings: Readings

    @cached_property
    def checks(self) -> tuple[MachineCheck, ...]:
        """The checks of the readings, each with a state and a remedy."""
        return checks_of(self.readings)

    def _records(self) -> tuple[object, ...]:
        return self.checks

    def _summary(self) -> Iterator[str]:
        return summary_lines(self.checks, self.readings.noise_floor)

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
    on_progress: OnProgressOption = "auto",
) -> Examination:
    """Measure the speed and the noise of this machine, and check its state before a benchmark.

    Args:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`; None takes the current GPU, else the CPU.
        quick: skip the noise trials, which take about a minute.
        replicas: processes on each side of a noise trial, 2 or more.
        on_progress: as for `compare`.

    Returns:
        The readings, and one check for each with a state and a remedy.

    Raises:
        WorkloadError: there is no such device.
        SpecError: `replicas` is not a whole number of 2 or more.
    """
    number = whole_number(replicas, 2)
    if number is None or number > MOST_REPLICAS:
        fix = f"give a whole number from 2 to {MOST_REPLICAS}"
        raise SpecError(f"replicas is {replicas!r}", fix)
    with shown(on_progress) as report:
        return _examination(usable_device(device), quick, replicas, report)


def _examination(
    device: torch.device, quick: bool, replicas: int, on_progress: OnProgress | None
) -> Examination:
    if on_progress is not None:
        on_progress(Progress("", "looking", 0, 0, step="clocks, matmuls and copies"))
    readings = measure_readings(device)
    if not quick:
        free_memory()
        trials, trouble = noise_trials(device, replicas, on_progress)
        readings = attrs.evolve(readings, trials=trials, trouble=trouble)
    return Examination(readings)
