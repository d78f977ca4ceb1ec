"""Devices that exist on a virtual clock only: what drifts, steps, throttles, and differs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import attrs

from precisionbench.measure import rounds
from precisionbench.measure.worker.protocol import Opening
from precisionbench.results import Block

CALL_S = 0.01
NOISE = 0.01
BUDGET_S = 14.0
SESSION_S = 7.0  # about how long twelve rounds of two rows with three replicas take


@attrs.define
class World:
    """A device with its own time; `environment` is a factor on all that runs at a time."""

    rng: random.Random
    environment: Callable[[World], float] = lambda _: 1.0
    noise: Callable[[random.Random], float] = lambda rng: rng.gauss(0, NOISE)
    now_s: float = 0.0
    state: float = 0.0
    until_s: float = 0.0

    def call(self, seconds: float) -> float:
        took_s = seconds * self.environment(self) * math.exp(self.noise(self.rng))
        self.now_s += took_s
        return took_s


@attrs.frozen
class PreparedBackend:
    """A process of this world with a level of its own."""

    world: World
    call_s: float

    @property
    def opening(self) -> Opening:
        return Opening("fake", 1e-9, 200e-6, 0.5, 3.0, 3, CALL_S, {}, {})

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        for _ in range(settle_calls):
            self.world.call(self.call_s)
        return tuple(self.world.call(self.call_s) for _ in range(samples))


def row_state(
    world: World, name: str, call_s: float, replicas: int, spread: float
) -> rounds.RowState:
    """A row whose processes differ by `spread` (standard deviation of the log)."""
    levels = [call_s * math.exp(world.rng.gauss(0, spread)) for _ in range(replicas)]
    return rounds.RowState(name, [PreparedBackend(world, level) for level in levels])


def session(
    world: World, ratios: tuple[float, ...] = (1.0, 1.0), spread: float = 0.0, **rules: object
) -> dict[str, list[Block]]:
    """Measure rows that are as many times as fast as the first; the blocks of each."""
    row_states = [
        row_state(world, str(i), CALL_S / ratio, 3, spread) for i, ratio in enumerate(ratios)
    ]
    known = {"budget_s": BUDGET_S, "reference": "0", "rng": world.rng, "now": lambda: world.now_s}
    rounds.run_rounds(row_states, rounds.Schedule(**{**known, **rules}))  # type: ignore[arg-type]
    return {row_state.name: row_state.blocks for row_state in row_states}


def steady(_: World) -> float:
    return 1.0


def autocorrelated(world: World) -> float:
    """AR(1) over calls with a correlation length of 20."""
    phi = math.exp(-1 / 20)
    world.state = phi * world.state + world.rng.gauss(0, 0.02 * math.sqrt(1 - phi * phi))
    return math.exp(world.state)


def drifting(world: World) -> float:
    """Five percent slower by the end of the shortest session."""
    return 1 + 0.05 * world.now_s / SESSION_S


def stepping(world: World) -> float:
    return 1.03 if world.now_s > SESSION_S / 2 else 1.0


def two_clock_states(world: World) -> float:
    """Stays in one of two clock states for half a second on average."""
    if world.now_s >= world.until_s:
        world.state = 0.05 - world.state
        world.until_s = world.now_s + world.rng.expovariate(2)
    return 1 + world.state


def throttled_at_times(world: World) -> float:
    return 1.1 if world.now_s % 0.7 < 0.2 else 1.0


ENVIRONMENTS = {
    "steady": steady,
    "autocorrelated": autocorrelated,
    "drift": drifting,
    "step": stepping,
    "two clock states": two_clock_states,
    "periodic throttling": throttled_at_times,
}
