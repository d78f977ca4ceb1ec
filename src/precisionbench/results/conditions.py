"""Other load on the machine while rows were measured, sampled between the rounds."""

from __future__ import annotations

import attrs

from precisionbench.display import Shown


@attrs.frozen(repr=False)
class CpuUse(Shown):
    """How the CPU cores on which rows run were used for a while.

    Attributes:
        wall_s: how long.
        cores: number of these cores.
        busy_s: CPU time of these cores on behalf of any process.
        own_s: CPU time of the measuring process and of those that it has started.
    """

    wall_s: float
    cores: int
    busy_s: float
    own_s: float

    @property
    def others_s(self) -> float:
        """CPU time of these cores on behalf of other processes."""
        return max(0.0, self.busy_s - self.own_s)

    @property
    def others_cores(self) -> float:
        """How many of these cores other processes kept busy, on average."""
        return min(self.others_s / self.wall_s, self.cores) if self.wall_s > 0 else 0.0


@attrs.frozen(repr=False)
class RoundConditions(Shown):
    """Other load on the machine during some rounds; clocks and throttling are in each `Block`.

    Attributes:
        first_round: the first of these rounds, from 0.
        last_round: the last of them; the same one unless rounds are short.
        session: number of the repetition of the whole comparison, from 0.
        row: the row whose rounds they are, where rows were measured one after another; None where
            all rows share the rounds.
        cpu: use of the CPU cores; None where that is not known.
        gpu_processes: other processes that computed on the GPU before or after these rounds.
    """

    first_round: int
    last_round: int
    session: int = 0
    row: str | None = None
    cpu: CpuUse | None = None
    gpu_processes: tuple[str, ...] = ()
