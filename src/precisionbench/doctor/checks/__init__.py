"""Checks of the machine: each turns readings into a state and a remedy, without torch.

A new check is a function in one of these modules, its name in `CHECKS`, and a field of `Readings`
for what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.checks.hardware import check_device, check_power
from precisionbench.doctor.checks.noise import check_noise
from precisionbench.doctor.checks.software import (
    check_backends,
    check_host,
    check_other_processes,
)
from precisionbench.doctor.checks.speed import (
    check_half_precision,
    check_launch_overhead,
    check_rates,
    check_timer,
)
from precisionbench.doctor.readings import Readings

CHECKS: tuple[Callable[[Readings], Iterator[MachineCheck]], ...] = (
    check_device,
    check_timer,
    check_launch_overhead,
    check_rates,
    check_half_precision,
    check_power,
    check_host,
    check_other_processes,
    check_noise,
    check_backends,
)


def checks_of(readings: Readings) -> tuple[MachineCheck, ...]:
    """All checks of an examination, in display order.

    Args:
        readings: what was measured.
    """
    return tuple(line for check in CHECKS for line in check(readings))


__all__ = ["CHECKS", "MachineCheck", "State", "checks_of"]
