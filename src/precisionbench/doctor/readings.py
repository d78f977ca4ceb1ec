"""What is measured of a machine: frozen data, readable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from precisionbench.analysis.variation import MIN_INTERVAL_ROUNDS
from precisionbench.display import Shown
from precisionbench.results import CpuUse, DeviceState, Environment, Speedup
from precisionbench.results.latency import known_noise_floor

_Z_95 = 1.645  # 95th percentile of the normal distribution
_UPPER_TAIL = 0.975  # of a 95 % interval
_LEAST_PROCESSES = 4


@attrs.frozen(repr=False)
class NoiseTrial(Shown):
    """A small model compared with itself in fresh processes: every difference is noise.

    Attributes:
        name: `device_bound` or `host_bound`, after the intended bottleneck.
        latency_s: of one call.
        within: standard deviation of the log latency of blocks within a process (0.002 is 0.2 %).
        between: standard deviation of the log latency between processes; includes `within`.
        processes: number of processes on both sides together.
        speedup: of one side over the other.
        rounds: number of rounds.
        schedule: how they were measured; see `precisionbench.analysis.speedups`.
    """

    name: str
    latency_s: float
    within: float
    between: float
    processes: int
    speedup: Speedup
    rounds: int = MIN_INTERVAL_ROUNDS
    schedule: str = "rounds"

    @property
    def is_conclusive(self) -> bool:
        """Whether there were several processes on each side and enough rounds to estimate noise."""
        enough = self.processes >= _LEAST_PROCESSES and self.rounds >= MIN_INTERVAL_ROUNDS
        return self.schedule == "rounds" and enough

    def smallest_effect(self, floor: float) -> float:
        """The smallest difference that 19 of 20 such runs detect, as a share.

        It is half the width of the interval of `compare` plus 1.645 standard errors.

        Args:
            floor: spread between processes that `compare` assumes.
        """
        from scipy.special import ndtri, stdtrit

        t = float(stdtrit(self.processes - 2, _UPPER_TAIL))
        half_width = max(t * self.between, float(ndtri(_UPPER_TAIL)) * floor)
        per_side = self.processes / 2
        return math.expm1((half_width + _Z_95 * self.between) * math.sqrt(2 / per_side))


@attrs.frozen(repr=False)
class Readiness(Shown):
    """Whether a backend can run here.

    Attributes:
        name: of the backend.
        available: whether it can run.
        requirement: what is missing.
        remedy: how to install it.
    """

    name: str
    available: bool
    requirement: str = ""
    remedy: str = ""


@attrs.frozen(repr=False)
class Readings(Shown):
    """Everything that an examination measures.

    Attributes:
        environment: machine and versions.
        clock: `cuda_events` or `host`.
        clock_step_s: smallest step of this clock.
        launch_s: host time to launch one small operation.
        rates: FLOP/s of `fp32`, `tf32`, `fp16` and `bf16` matmuls, byte/s of `bandwidth`.
        unknown: the reason for each rate that is missing.
        state: the GPU right after a second of matmuls; None if unknown.
        load: load average of the last minute, per core; None if unknown.
        governor: the CPU's frequency governor; None if unknown.
        strangers: other processes that compute on the GPU; None if unknown.
        backends: whether each can run.
        trials: noise trials; empty if they were left out.
        trouble: why noise trials are missing.
        cpu: use of the CPU cores while the readings were taken; None if unknown.
    """

    environment: Environment
    clock: str
    clock_step_s: float
    launch_s: float
    rates: Mapping[str, float]
    unknown: Mapping[str, str]
    state: DeviceState | None
    load: float | None
    governor: str | None
    strangers: tuple[str, ...] | None
    backends: tuple[Readiness, ...]
    trials: tuple[NoiseTrial, ...] = ()
    trouble: str = ""
    cpu: CpuUse | None = None

    @property
    def known_spread(self) -> float:
        """The spread between processes that `compare` assumes on such a device."""
        return known_noise_floor(self.environment.device)

    @property
    def noise_floor(self) -> float | None:
        """Standard deviation of the log latency between processes of the same device-bound code.

        It is meant for `compare(noise_floor=...)`. It is at least `known_spread`, because processes
        of one model can agree where those of another differ. None if it was not measured.
        """
        measured = [t.between for t in self.trials if t.name == "device_bound" and t.is_conclusive]
        return max(measured[0], self.known_spread) if measured else None
