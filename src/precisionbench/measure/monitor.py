"""Samples other load on the machine, between the rounds and never within a block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import attrs

from precisionbench.measure.guard import Dispensable
from precisionbench.results import RoundConditions
from precisionbench.system.cpu_times import CpuTimes

# CPU times step in ticks of 10 ms for each process, so short rounds share a sample.
_LEAST_S = 0.25
# Reading takes at most this share of the time: it reads a file for each process of the system.
_LARGEST_SHARE = 0.01
_GPU_LEAST_S = 2.0  # between two lists of the GPU's processes, which the driver gives slowly


@attrs.define
class Monitor:
    """Samples the machine before the first round and after each round that is long enough.

    It ends with the first error.

    Attributes:
        read_cpu: reads the CPU times so far; None where they are not known.
        read_gpu: lists other processes that compute on the GPU.
        record: takes what was found.
        note: takes the note that sampling has failed.
        session: number of the repetition of the whole comparison.
        row: the row that is measured, where rows are measured one after another.
        now: a clock, in seconds.
    """

    read_cpu: Callable[[], CpuTimes | None]
    read_gpu: Callable[[], Sequence[str]]
    record: Callable[[RoundConditions], object]
    note: Callable[[str], object] = lambda _: None
    session: int = 0
    row: str | None = None
    now: Callable[[], float] = time.monotonic
    _cpu: CpuTimes | None = attrs.field(default=None, init=False)
    _gpu: tuple[str, ...] = attrs.field(default=(), init=False)
    _next_round: int = attrs.field(default=0, init=False)  # the first one not recorded yet
    _last_round: int = attrs.field(default=-1, init=False)  # the last one that has ended
    _due_s: float = attrs.field(default=0.0, init=False)
    _gpu_due_s: float = attrs.field(default=-math.inf, init=False)
    _sampling: Dispensable = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sampling = Dispensable("sampling other load on the machine", self.note)

    def start(self) -> None:
        """Sample before the first round."""
        self._sampling.do(self._sample)

    def after_round(self, number: int) -> None:
        """Sample after a round, unless the last sample is too recent.

        Args:
            number: of the round, from 0.
        """
        self._last_round = number
        if self.now() >= self._due_s:
            self._sampling.do(self._record)

    def finish(self) -> None:
        """Sample after the last round, unless that has been done."""
        if self._last_round >= self._next_round:
            self._sampling.do(self._record)

    def _record(self) -> None:
        """Sample, and record what has happened since the last sample."""
        cpu, gpu = self._cpu, self._gpu
        self._sample()
        self.record(
            RoundConditions(
                first_round=self._next_round,
                last_round=self._last_round,
                session=self.session,
                row=self.row,
                cpu=cpu.use_until(self._cpu) if cpu and self._cpu else None,
                gpu_processes=tuple(dict.fromkeys((*gpu, *self._gpu))),
            )
        )
        self._next_round = self._last_round + 1

    def _sample(self) -> None:
        begun_s = self.now()
        if begun_s >= self._gpu_due_s:
            self._gpu, self._gpu_due_s = tuple(self.read_gpu()), begun_s + _GPU_LEAST_S
        self._cpu = self.read_cpu()
        ended_s = self.now()
        self._due_s = ended_s + max(_LEAST_S, (ended_s - begun_s) / _LARGEST_SHARE)
