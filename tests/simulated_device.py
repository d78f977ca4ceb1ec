"""Simulated devices on a virtual clock: they drift, step, throttle, and have noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import attrs

from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.worker.protocol import Opening
from precisionbench.results import Block

CALL_S = 0.01
NOISE = 0.01
BUDGET_S = 14.0
SESSION_S = 7.0  # about how long twelve rounds of two rows with three replicas take


@attrs.define
class SimulatedDevice:
    """A device with its own clock.

    Attributes:
        rng: draws all that is random.
        environment: the factor on the duration of a call at this time.
        noise: draws the noise of a call, as a log.
        now_s: the device's clock.
        state: for environments that remember something.
        until_s: until when that state lasts.
    """

    rng: random.Random
    environment: Callable[[SimulatedDevice], float] = lambda _: 1.0
    noise: Callable[[random.Random], float] = lambda rng: rng.gauss(0, NOISE)
    now_s: float = 0.0
    state: float = 0.0
    until_s: float = 0.0

    def call(self, seconds: float) -> float:
        took_s = seconds * self.environment(self) * math.exp(self.noise(self.rng))
        self.now_s += took_s
        return took_s


@attrs.frozen
class SimulatedBackend:
    """A prepared backend on a simulated device, in a process with a level of its own."""

    device: SimulatedDevice
    call_s: float
    batch_size: int | None = None

    @property
    def opening(self) -> Opening:
        known = Opening("fake", 1e-9, 200e-6, 0.5, 3.0, 3, CALL_S, {}, {})
        return attrs.evolve(known, batch_size=self.batch_size)

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        for _ in range(settle_calls):
            self.device.call(self.call_s)
        return tuple(self.device.call(self.call_s) for _ in range(samples))


def row_state(
    device: SimulatedDevice, name: str, call_s: float, replicas: int, spread: float
) -> RowState:
    """A row whose processes differ by `spread` (standard deviation of the log)."""
    levels = [call_s * math.exp(device.rng.gauss(0, spread)) for _ in range(replicas)]
    return RowState(name, [SimulatedBackend(device, level) for level in levels])


def session(
    device: SimulatedDevice,
    ratios: tuple[float, ...] = (1.0, 1.0),
    spread: float = 0.0,
    **options: object,
) -> dict[str, list[Block]]:
    """Measure rows that are as many times as fast as the first; the blocks of each."""
    row_states = [
        row_state(device, str(i), CALL_S / ratio, 3, spread) for i, ratio in enumerate(ratios)
    ]
    known = {"budget_s": BUDGET_S, "reference": "0", "rng": device.rng, "now": lambda: device.now_s}
    run_rounds(row_states, Schedule(**{**known, **options}))  # type: ignore[arg-type]
    return {row_state.name: row_state.blocks for row_state in row_states}


def steady(_: SimulatedDevice) -> float:
    return 1.0


def autocorrelated(device: SimulatedDevice) -> float:
    """AR(1) over calls with a correlation length of 20."""
    phi = math.exp(-1 / 20)
    device.state = phi * device.state + device.rng.gauss(0, 0.02 * math.sqrt(1 - phi * phi))
    return math.exp(device.state)


def drifting(device: SimulatedDevice) -> float:
    """Five percent slower by the end of the shortest session."""
    return 1 + 0.05 * device.now_s / SESSION_S


def stepping(device: SimulatedDevice) -> float:
    return 1.03 if device.now_s > SESSION_S / 2 else 1.0


def two_clock_states(device: SimulatedDevice) -> float:
    """Stays in one of two clock states for half a second on average."""
    if device.now_s >= device.until_s:
        device.state = 0.05 - device.state
        device.until_s = device.now_s + device.rng.expovariate(2)
    return 1 + device.state


def periodically_throttled(device: SimulatedDevice) -> float:
    return 1.1 if device.now_s % 0.7 < 0.2 else 1.0


ENVIRONMENTS = {
    "steady": steady,
    "autocorrelated": autocorrelated,
    "drift": drifting,
    "step": stepping,
    "two clock states": two_clock_states,
    "periodic throttling": periodically_throttled,
}


class ManualClock:
    """A clock that is moved by hand.

    Args:
        now_s: where it begins, in seconds.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
