"""The times of one backend: how its replicas were prepared, and blocks of raw samples."""

from __future__ import annotations

from statistics import median

import attrs

from precisionbench.display import Shown
from precisionbench.results.grouping import ReplicaKey, RoundKey, samples_by_round
from precisionbench.results.validators import check_samples

# `Measurement.clock` and `ComparisonData.launcher` of times that were read, not measured.
REPORTED = "reported"
# `Measurement.ended_by` of calls that a program made itself, each timed once.
RECORDED = "recorded"


def _check_blocks(_: object, __: object, blocks: tuple[Block, ...]) -> None:
    if not blocks or not all(block.samples for block in blocks):
        raise ValueError("a measurement needs blocks with samples")
    places = {(block.session, block.round, block.replica) for block in blocks}
    if len(places) < len(blocks):
        raise ValueError("two blocks have the same session, round and replica")


@attrs.frozen(repr=False)
class DeviceState(Shown):
    """State of the GPU around one block; a field is None where NVML does not report it.

    Attributes:
        sm_clock_hz: clock of the multiprocessors, right after the block.
        power_w: power drawn, right after the block.
        temperature_c: temperature, right after the block.
        throttled: reasons why the clocks were reduced during the block, e.g. `sw_power_cap`.
    """

    sm_clock_hz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class Block(Shown):
    """Consecutive timed calls of one replica.

    Attributes:
        round: its round, from 0; in each round every replica of every row is measured once.
        position: its place in the round's order, from 0.
        replica: number of the preparation of the backend that it measures, from 0.
        samples: seconds per call, in the order taken.
        session: number of the repetition of the whole comparison, from 0.
        state: state of the GPU around it; None where that is not available.
    """

    round: int
    position: int
    replica: int
    samples: tuple[float, ...] = attrs.field(validator=check_samples)
    session: int = 0
    state: DeviceState | None = None

    @property
    def median_s(self) -> float:
        """The median of the samples, in seconds per call."""
        return median(self.samples)

    @property
    def round_key(self) -> RoundKey:
        """(session, round): identifies a round over all sessions."""
        return self.session, self.round

    @property
    def replica_key(self) -> ReplicaKey:
        """(session, replica): identifies a replica over all sessions."""
        return self.session, self.replica


@attrs.frozen(repr=False)
class Preparation(Shown):
    """How one replica was prepared.

    Attributes:
        build_s: time that `prepare` took.
        first_call_s: time of the first call alone (it may load, tune or compile).
        warmup_calls: calls before the first block that are not counted; excludes the first call.
        replica: number of the replica.
        session: number of the repetition of the whole comparison.
    """

    build_s: float
    first_call_s: float
    warmup_calls: int
    replica: int = 0
    session: int = 0


@attrs.frozen(repr=False)
class Measurement(Shown):
    """The raw times of one backend.

    Attributes:
        clock: `cuda_events`, `host`, or `reported` where nothing was timed here.
        resolution_s: the smallest step of that clock, in seconds.
        calls_per_sample: how many calls one sample spans (more than one for very short calls).
        preparations: one for each replica.
        blocks: all blocks, in the order taken.
        ended_by: `target` (intervals narrow enough), `process_level` (more rounds would not
            narrow them), `clear` (every verdict is beyond doubt), `rounds` (maximum reached),
            `budget`, `interrupted`, `failed` (the backend failed later; the finished rounds are
            kept), or `recorded` (calls of a program, each timed once).
    """

    clock: str
    resolution_s: float
    calls_per_sample: int
    preparations: tuple[Preparation, ...] = attrs.field(validator=attrs.validators.min_len(1))
    blocks: tuple[Block, ...] = attrs.field(validator=_check_blocks)
    ended_by: str

    @property
    def is_reported(self) -> bool:
        """Whether the times were reported by somebody else and not measured here."""
        return self.clock == REPORTED

    @property
    def build_s(self) -> float:
        """Time that `prepare` took, in seconds, in the first replica of a session (the median).

        Further replicas may be prepared side by side, which disturbs them.
        """
        return median(preparation.build_s for preparation in self._undisturbed)

    @property
    def first_call_s(self) -> float:
        """Time of the first call, in seconds, in the same replicas."""
        return median(preparation.first_call_s for preparation in self._undisturbed)

    @property
    def _undisturbed(self) -> tuple[Preparation, ...]:
        first = tuple(one for one in self.preparations if not one.replica)
        return first or self.preparations

    @property
    def warmup_calls(self) -> int:
        """Calls of all replicas before their first blocks; they are not counted as samples."""
        return sum(preparation.warmup_calls for preparation in self.preparations)

    @property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round, of all replicas together."""
        return samples_by_round(self.blocks)
