"""What was measured of a machine: frozen data, readable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from precisionbench.analysis.variation import MIN_INTERVAL_ROUNDS, known_noise_floor
from precisionbench.results.records import DeviceState, Environment, Speedup

_Z_95 = 1.645  # the normal distribution's 95th percentile
_TAIL = 0.975  # of a 95 % interval
_LEAST_PROCESSES = 4


@attrs.frozen
class NoiseTrial:
    """A small workload against itself, in fresh processes: what it says is noise.

    Attributes:
        name: `device_bound` or `host_bound`, as it is meant to be.
        latency_s: of one call.
        within: standard deviation of blocks within a process, as a log (0.002 is 0.2 %).
        between: standard deviation between processes, likewise; noise within them is part of it.
        processes: how many there were, of both sides together.
        speedup: of the one half of them over the other.
        rounds: how many there were.
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
    def tells(self) -> bool:
        """Whether it says anything of noise: several processes a side, in enough rounds."""
        enough = self.processes >= _LEAST_PROCESSES and self.rounds >= MIN_INTERVAL_ROUNDS
        return self.schedule == "rounds" and enough

    def smallest_effect(self, floor: float) -> float:
        """The smallest difference that 19 of 20 such runs tell from none, as a share.

        It is as far as the interval of `compare` reaches, and another 1.645 standard errors.

        Args:
            floor: spread between processes that `compare` takes to be known.
        """
        from scipy.special import ndtri, stdtrit

        t = float(stdtrit(self.processes - 2, _TAIL))
        reach = max(t * self.between, float(ndtri(_TAIL)) * floor)
        per_side = self.processes / 2
        return math.expm1((reach + _Z_95 * self.between) * math.sqrt(2 / per_side))


@attrs.frozen
class Readiness:
    """Whether a backend can run here.

    Attributes:
        name: the backend's.
        available: whether it can.
        requirement: what is missing.
        remedy: how to get it.
    """

    name: str
    available: bool
    requirement: str = ""
    remedy: str = ""


@attrs.frozen
class Readings:
    """Everything that an examination measures.

    Attributes:
        environment: machine and versions.
        clock: `cuda_events` or `host`.
        clock_step_s: its smallest step.
        launch_s: the host's time for one small operation.
        rates: FLOP/s of `fp32`, `tf32`, `fp16` and `bf16` matmuls, byte/s of `bandwidth`.
        unknown: for each rate that is missing, why.
        state: the GPU right after a second of matmuls; None where nothing tells.
        load: processes that wanted to run in the last minute, for each core; None if not told.
        governor: the CPU's frequency governor; None if not told.
        strangers: other processes that compute on the GPU; None where that is not known.
        backends: whether each can run.
        trials: A/A trials; empty where they were left out.
        trouble: why they could not be made.
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

    @property
    def known_spread(self) -> float:
        """What processes are taken to differ by on such a device where nobody has measured it."""
        return known_noise_floor(self.environment.device)

    @property
    def noise_floor(self) -> float | None:
        """What processes of the same device-bound code may differ by (sd of the log).

        It is for `compare(noise_floor=...)`, and no less than what is taken to be known of such
        devices: one model's processes can be alike where another's are not. None where it was not
        measured.
        """
        seen = [t.between for t in self.trials if t.name == "device_bound" and t.tells]
        return max(seen[0], self.known_spread) if seen else None
