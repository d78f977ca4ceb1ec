"""How much energy a call takes, over whole seconds, in a pass of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from precisionbench.probes.timing import UnmeasurableError
from precisionbench.system import nvml
from precisionbench.system.telemetry import JetsonTelemetry
from precisionbench.torchtools.timer import Call, Clock

# Drivers bring their counters up to date every 20 to 100 ms: over a second a few percent at most.
MIN_S = 1.0
_POWER_EVERY_S = 0.02
Run = Callable[[], object]


def energy_j(
    clock: Clock, call: Call, call_s: float, joules_during: Callable[[Run], float | None]
) -> float:
    """Energy of one call in joules, of the whole board, from calls back to back for a second.

    Args:
        clock: of the device.
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        joules_during: runs something and returns the joules that the device used in that time.

    Raises:
        UnmeasurableError: the device does not count its energy.
    """
    calls = max(1, math.ceil(MIN_S / call_s))

    def run() -> None:
        for _ in range(calls):
            call()
        clock.wait()

    clock.wait()
    joules = joules_during(run)
    if joules is None:
        raise UnmeasurableError("the device does not tell how much energy it takes")
    return joules / calls


def device_joules(device: torch.device, run: Run, root: Path = Path("/")) -> float | None:
    """The energy that a device uses while something runs; None where it cannot be measured.

    NVML's counter; on a Jetson the power monitors, read every 20 ms and integrated.

    Args:
        device: a CUDA device.
        run: waits for the device at its end.
        root: of the file system.
    """
    if files := JetsonTelemetry.found(root):
        return _integrated(files, run)
    with nvml.opened(device) as found:
        return _counted(*found, run) if found else None


def _counted(library: Any, handle: Any, run: Run) -> float | None:
    before = nvml.total_energy_j(library, handle)
    run()
    after = nvml.total_energy_j(library, handle)
    if before is None or after is None or after <= before:
        return None
    return after - before


def _integrated(files: JetsonTelemetry, run: Run) -> float | None:
    readings: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(_POWER_EVERY_S):
            if (power_w := files.power_w()) is not None:
                readings.append(power_w)

    reader = threading.Thread(target=read, daemon=True)
    begun_s = time.perf_counter()
    reader.start()
    try:
        run()
    finally:
        took_s = time.perf_counter() - begun_s
        over.set()
        reader.join()
    return mean(readings) * took_s if readings else None
