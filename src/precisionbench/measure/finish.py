"""What the workers of a row leave behind, session by session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.collector import Collected
from precisionbench.measure.examination import Float64Reference
from precisionbench.measure.rounds import RowState
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.protocol import Closing
from precisionbench.results.evidence import Evidence
from precisionbench.results.records import Measurement, Passes


@attrs.define
class FinishedRow:
    """What one session leaves of a row.

    Attributes:
        measurement: its blocks.
        replicas: its workers.
        call_s: about how long a call takes.
        warnings: what a reader of the row must know.
        passes: what was measured beside the latency.
        output: the first call's; None where it could not be had.
        evidence: what ran in a call; None where that was not looked at.
    """

    measurement: Measurement
    replicas: Sequence[WorkerBackend]
    call_s: float
    warnings: list[str]
    passes: Passes = attrs.field(factory=Passes)
    output: Mapping[str, object] | None = None
    evidence: Evidence | None = None

    @classmethod
    def of(cls, row_state: RowState, ended_by: str) -> FinishedRow:
        """What a row_state has come to.

        Args:
            row_state: with at least one block.
            ended_by: what ended the rounds.
        """
        return cls(
            row_state.measurement(ended_by),
            row_state.replicas,
            row_state.call_s,
            row_state.warnings,
        )

    def look(self, everything: bool, passes: bool = True) -> None:
        """Fetch the first output, and run the passes beside the latency.

        Args:
            everything: not the output alone.
            passes: whether they are wanted at all.
        """
        prepared = self.replicas[0]
        self._guarded(lambda: self._fetch(prepared))
        if everything and passes:
            self._guarded(lambda: self._pass(prepared))
        if everything:
            self._guarded(prepared.check_steady)

    @property
    def examined(self) -> WorkerBackend:
        """The last replica: a profiler would leave traces in the first one's passes."""
        return self.replicas[-1]

    def examine(self, truth: Float64Reference) -> None:
        """See what runs in a call.

        Args:
            truth: what the layers give in float64.
        """
        self._guarded(lambda: self._examine(truth))

    def _examine(self, truth: Float64Reference) -> None:
        self.evidence = truth.evidence(self.examined, self.call_s)

    def _fetch(self, prepared: WorkerBackend) -> None:
        self.output = prepared.output

    def _pass(self, prepared: WorkerBackend) -> None:
        self.passes = prepared.passes(self.call_s, capture=True)

    def _guarded(self, action: Callable[[], object]) -> None:
        """What fails after a row was measured is said, and takes nothing away."""
        try:
            action()
        except PrecisionBenchError as exc:
            self.warnings.append(f"after it had been measured: {exc}")

    def close(self) -> None:
        """Wait until all its workers, which were told to leave, have undone their backends."""
        for prepared in self.replicas:
            self._guarded(prepared.close)


def close(rows: Sequence[FinishedRow]) -> None:
    """Let the workers of all rows undo their backends side by side."""
    for done in rows:
        for prepared in done.replicas:
            prepared.leave()
    for done in rows:
        done.close()


def keep(collected: Collected, row: Row, parts: Sequence[FinishedRow]) -> None:
    """Hand what all sessions left of a row to the collection.

    Args:
        collected: takes it.
        row: whose it is.
        parts: one for each session.
    """
    first = parts[0]
    closing = first.replicas[0].closing()
    warnings = [text for part in parts for text in part.warnings]
    collected.keep(
        row,
        first.replicas[0].opening,
        _merged([part.measurement for part in parts]),
        Closing((*closing.warnings, *warnings), closing.log),
        first.passes,
        first.output,
        first.evidence,
    )


def _merged(parts: Sequence[Measurement]) -> Measurement:
    """The measurements of all sessions as one."""
    return attrs.evolve(
        parts[0],
        preparations=tuple(p for part in parts for p in part.preparations),
        blocks=tuple(block for part in parts for block in part.blocks),
        ended_by=parts[-1].ended_by,
    )
