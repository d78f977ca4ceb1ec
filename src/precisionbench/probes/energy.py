"""How much energy a call takes: the device's power while calls run back to back, in a short pass.

Drivers update their energy counter rarely (every 100 ms on an H200), so two readings a fraction of
a second apart can miss a whole update. The counter is therefore read all the time, and the power is
taken between two moments at which it has just advanced. Blocks are shorter than an update, which is
why the energy cannot be read around them.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch

from precisionbench.probes.timing import UnmeasurableError
from precisionbench.system import nvml
from precisionbench.system.telemetry import JetsonTelemetry
from precisionbench.torchtools.timer import Call, Clock

# Calls run for so long: the power has settled after an update, and three or more updates follow.
RUN_S = 0.5
_SETTLE_S = 0.1
_READ_EVERY_S = 0.005
# A reading and when it was taken, by `time.perf_counter`.
Reading = tuple[float, float]
Run = Callable[[], object]


def energy_j(
    clock: Clock, call: Call, call_s: float, power_during: Callable[[Run], float | None]
) -> float:
    """Energy of one call in joules, of the whole board, from calls back to back for half a second.

    Args:
        clock: of the device.
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        power_during: runs something and returns the device's power in watts in that time.

    Raises:
        UnmeasurableError: the device does not report its energy.
    """
    calls = max(1, math.ceil(RUN_S / call_s))
    took_s = 0.0

    def run() -> None:
        nonlocal took_s
        begun_s = time.perf_counter()
        for _ in range(calls):
            call()
        clock.wait()
        took_s = time.perf_counter() - begun_s

    clock.wait()
    power_w = power_during(run)
    if power_w is None:
        raise UnmeasurableError("the device does not report its energy")
    return power_w * took_s / calls


def device_power_w(device: torch.device, run: Run, root: Path = Path("/")) -> float | None:
    """The power of a device while something runs; None where it cannot be measured.

    By NVML's energy counter; on a Jetson by the power monitors.

    Args:
        device: a CUDA device.
        run: keeps the device busy, and waits for it at its end.
        root: of the file system.
    """
    if files := JetsonTelemetry.found(root):
        readings = readings_during(run, files.power_w)
        return mean(value for _, value in readings) if readings else None
    with nvml.opened(device) as found:
        if found is None:
            return None
        begun_s = time.perf_counter()
        readings = readings_during(run, lambda: nvml.total_energy_j(*found))
        return counted_power_w(readings, begun_s)


def readings_during(run: Run, read: Callable[[], float | None]) -> list[Reading]:
    """What was read while something ran, every 5 ms and once at its end.

    Args:
        run: what to run.
        read: gives a value; None where there is none.
    """
    readings: list[Reading] = []

    def take() -> None:
        if (value := read()) is not None:
            readings.append((time.perf_counter(), value))

    with _repeated(take):
        run()
    take()
    return readings


@contextlib.contextmanager
def _repeated(take: Callable[[], None]) -> Iterator[None]:
    """Take a reading again and again in a thread."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(_READ_EVERY_S):
            take()

    reader = threading.Thread(target=repeat, daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()


def counted_power_w(readings: Sequence[Reading], begun_s: float) -> float | None:
    """The power by a counter of joules that advances in steps, between the first and last step.

    The first step after the load has begun still holds energy from before it.

    Args:
        readings: of the counter.
        begun_s: when the load began.

    Returns:
        Watts; None where the counter has not advanced. With a single step, the power since the
        first reading.
    """
    later = [reading for reading in readings if reading[0] >= begun_s + _SETTLE_S]
    steps = [new for old, new in itertools.pairwise(later) if new[1] > old[1]]
    ends = steps if len(steps) > 1 else list(readings)
    if len(ends) < 2 or ends[-1][1] <= ends[0][1]:
        return None
    return (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0])
