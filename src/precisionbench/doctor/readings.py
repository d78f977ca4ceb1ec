"""What was measured of a machine: frozen data, readable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from precisionbench.results import DeviceState, Environment, Speedup

_Z_95 = 1.645  # the normal distribution's 95th percentile


@attrs.frozen
class Trial:
    """A small workload against itself, in fresh processes: what it says is noise.

    Attributes:
        name: `device_bound` or `host_bound`, as it is meant to be.
        latency_s: of one call.
        within: standard deviation of blocks within a process, as a log (0.002 is 0.2 %).
        between: standard deviation between processes, likewise; noise within them is part of it.
        processes: how many there were.
        speedup: of the one half of them over the other.
    """

    name: str
    latency_s: float
    within: float
    between: float
    processes: int
    speedup: Speedup

    @property
    def half_width(self) -> float:
        """Half of the interval around no difference, as a share."""
        return math.sqrt(self.speedup.high / self.speedup.low) - 1

    @property
    def smallest_effect(self) -> float:
        """The smallest difference that 19 of 20 such runs tell from none, as a share.

        The interval's half-width is t times the estimate's standard error; the effect must be
        larger by another 1.645 of these.
        """
        from scipy.special import stdtrit

        t = float(stdtrit(max(1, self.processes - 2), 0.975))
        return self.half_width * (1 + _Z_95 / t)


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
        strangers: others that compute on the GPU.
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
    strangers: tuple[str, ...]
    backends: tuple[Readiness, ...]
    trials: tuple[Trial, ...] = ()
    trouble: str = ""
