"""What the rounds work on: the state of each row, and how the rounds are to be run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

import attrs

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.budget_clock import BudgetClock, budget_clock
from precisionbench.measure.worker.protocol import Opening
from precisionbench.results import Block, Measurement, Preparation
from precisionbench.system.telemetry import NoTelemetry, Telemetry

# Why these: docs/between-processes.md.
MIN_ROUNDS = 12  # of one process each, whose interval is of the rounds
MIN_ROUNDS_OF_REPLICAS = 4  # their interval holds after any number of rounds
MIN_LONG_ROUNDS = 3
_LONG_ROUND_S = 2.0
MAX_ROUNDS = 100


@attrs.define
class RowState:
    """A row while it is measured.

    Attributes:
        name: the row's name.
        replicas: its prepared backends, one for each worker process.
        session: which repetition of the whole, from 0.
        samples: timed samples in a block.
        calls_per_sample: calls that one sample spans; more than one for very short calls.
        settle_calls: untimed calls at the start of a block.
        warmup_calls: warm-up calls made so far, for each replica.
        warmup_call_s: the mean duration of a call in each warm-up block, in seconds.
        blocks: blocks measured so far, without those of the warm-up.
        warnings: what qualifies the row's result.
        error: why it is no longer measured; None while it is.
        failed_replica: the number of the replica that failed, whose worker may have ended.
    """

    name: str
    replicas: list[Any]  # of PreparedBackend, or WorkerBackend; lists are invariant
    session: int = 0
    samples: int = 1
    calls_per_sample: int = 1
    settle_calls: int = 0
    warmup_calls: list[int] = attrs.field(factory=list)
    warmup_call_s: list[float] = attrs.field(factory=list)
    blocks: list[Block] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    error: PrecisionBenchError | None = None
    failed_replica: int | None = None

    @property
    def call_s(self) -> float:
        """Estimated duration of a call: the median of the replicas."""
        return median(opening.call_s for opening in self.openings)

    @property
    def mean_call_s(self) -> float:
        """Estimated mean duration of a call, which on a busy machine is far above the usual one."""
        return max(self.call_s, median(self.warmup_call_s or [0.0]))

    @property
    def block_s(self) -> float:
        """Estimated duration of one block of every replica."""
        calls = self.settle_calls + self.samples * self.calls_per_sample
        return calls * self.mean_call_s * len(self.replicas)

    @property
    def items(self) -> int:
        """Items that a call serves; 1 where that is not known."""
        return self.openings[0].batch_size or 1

    @property
    def complete_rounds(self) -> int:
        """Rounds in which every replica was measured."""
        return len(self.blocks) // len(self.replicas)

    @property
    def openings(self) -> list[Opening]:
        """What is known of each replica since it was prepared."""
        return [prepared.opening for prepared in self.replicas]

    def measurement(self, ended_by: str) -> Measurement:
        """The row's times as a record.

        Args:
            ended_by: what ended the rounds; for a row with an error it is `failed`.
        """
        openings = self.openings
        return Measurement(
            clock=openings[0].clock,
            resolution_s=openings[0].resolution_s,
            calls_per_sample=self.calls_per_sample,
            preparations=tuple(
                Preparation(o.build_s, o.first_call_s, o.warmup_calls + calls, i, self.session)
                for i, (o, calls) in enumerate(zip(openings, self.warmup_calls, strict=True))
            ),
            blocks=tuple(self.blocks),
            ended_by="failed" if self.error else ended_by,
        )


def least_rounds(row_states: Iterable[RowState]) -> int:
    """How many rounds rows need at least, which depends on their replicas and how long a round is.

    Args:
        row_states: of all rows, with the size of their blocks.
    """
    active = [row_state for row_state in row_states if row_state.error is None]
    if any(len(row_state.replicas) < 2 for row_state in active):
        return MIN_ROUNDS
    is_long = sum(row_state.block_s for row_state in active) >= _LONG_ROUND_S
    return MIN_LONG_ROUNDS if is_long else MIN_ROUNDS_OF_REPLICAS


@attrs.frozen
class RoundStatus:
    """How far the rounds are.

    Attributes:
        round: finished rounds.
        remaining_s: estimated seconds until the last round; None where nothing is known.
    """

    round: int
    remaining_s: float | None


@attrs.frozen
class Schedule:
    """How the rounds are run.

    Attributes:
        budget_s: seconds for warm-up and all rounds; one round is measured in any case.
        reference: the row that the others are compared with.
        rng: draws the order of each round.
        noise_floor: known run-to-run standard deviation of the log on this device.
        telemetry: reads the state of the device before and after each block.
        stop_requested: called before and after each block; the rounds end where it returns true.
        on_warm_up: called before the warm-up.
        on_first_round: called after the warm-up, before the first round.
        on_round: called after each round.
        on_block: called after each measured block with its row, whose last block it is.
        now: the clock of the budget, in seconds; the time of a block that fails is not counted.
        shuffle: false keeps the order of rows, to show that a fixed order is biased by drift.
        min_rounds: the fewest rounds; None depends on the replicas, see `least_rounds`.
        max_rounds: the most rounds.
        until_clear: end as soon as every verdict is clear, however wide the intervals are.
        ranked: for that, verdicts over the fastest row have to be clear, too.
        references: rows that are compared with another row, by name, and that row.
    """

    budget_s: float
    reference: str
    rng: random.Random
    noise_floor: float = 0.0
    telemetry: Telemetry = attrs.field(factory=NoTelemetry)
    stop_requested: Callable[[], bool] = lambda: False
    on_warm_up: Callable[[], object] = lambda: None
    on_first_round: Callable[[], object] = lambda: None
    on_round: Callable[[RoundStatus], object] = lambda _: None
    on_block: Callable[[RowState], object] = lambda _: None
    now: BudgetClock = attrs.field(factory=BudgetClock, converter=budget_clock)
    shuffle: bool = True
    min_rounds: int | None = None
    max_rounds: int = MAX_ROUNDS
    until_clear: bool = True
    ranked: bool = False
    references: Mapping[str, str] = attrs.field(factory=dict)

    def reference_of(self, row: str) -> str:
        """The row that a row is compared with.

        Args:
            row: name of the row.
        """
        return self.references.get(row, self.reference)

    def least_rounds(self, row_states: Iterable[RowState]) -> int:
        """The fewest rounds of these rows.

        Args:
            row_states: of all rows, with the size of their blocks.
        """
        wanted = least_rounds(row_states) if self.min_rounds is None else self.min_rounds
        return min(wanted, self.max_rounds)
