"""What the workers of a row leave behind, session by session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.collector import Collected
from precisionbench.measure.examination import Truth
from precisionbench.measure.rounds import Lane
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.client import RemoteSeat
from precisionbench.measure.worker.protocol import Closing
from precisionbench.results.evidence import Evidence
from precisionbench.results.records import Measurement, Passes


@attrs.define
class Finished:
    """What one session leaves of a row.

    Attributes:
        measurement: its blocks.
        seats: its workers.
        call_s: about how long a call takes.
        warnings: what a reader of the row must know.
        passes: what was measured beside the latency.
        output: the first call's; None where it could not be had.
        evidence: what ran in a call; None where that was not looked at.
    """

    measurement: Measurement
    seats: Sequence[RemoteSeat]
    call_s: float
    warnings: list[str]
    passes: Passes = attrs.field(factory=Passes)
    output: Mapping[str, object] | None = None
    evidence: Evidence | None = None

    @classmethod
    def of(cls, lane: Lane, ended_by: str) -> Finished:
        """What a lane has come to.

        Args:
            lane: with at least one block.
            ended_by: what ended the rounds.
        """
        return cls(lane.measurement(ended_by), lane.seats, lane.call_s, lane.warnings)

    def look(self, everything: bool, passes: bool = True) -> None:
        """Fetch the first output, and run the passes beside the latency.

        Args:
            everything: not the output alone.
            passes: whether they are wanted at all.
        """
        seat = self.seats[0]
        self._guarded(lambda: self._fetch(seat))
        if everything and passes:
            self._guarded(lambda: self._pass(seat))
        if everything:
            self._guarded(seat.check_steady)

    @property
    def examined(self) -> RemoteSeat:
        """The last replica: a profiler would leave traces in the first one's passes."""
        return self.seats[-1]

    def examine(self, truth: Truth) -> None:
        """See what runs in a call.

        Args:
            truth: what the layers give in float64.
        """
        self._guarded(lambda: self._examine(truth))

    def _examine(self, truth: Truth) -> None:
        self.evidence = truth.evidence(self.examined, self.call_s)

    def _fetch(self, seat: RemoteSeat) -> None:
        self.output = seat.output

    def _pass(self, seat: RemoteSeat) -> None:
        self.passes = seat.passes(self.call_s, capture=True)

    def _guarded(self, action: Callable[[], object]) -> None:
        """What fails after a row was measured is said, and takes nothing away."""
        try:
            action()
        except PrecisionBenchError as exc:
            self.warnings.append(f"after it had been measured: {exc}")

    def close(self) -> None:
        """Wait until all its workers, which were told to leave, have undone their backends."""
        for seat in self.seats:
            self._guarded(seat.close)


def close(rows: Sequence[Finished]) -> None:
    """Let the workers of all rows undo their backends side by side."""
    for done in rows:
        for seat in done.seats:
            seat.leave()
    for done in rows:
        done.close()


def keep(collected: Collected, row: Row, parts: Sequence[Finished]) -> None:
    """Hand what all sessions left of a row to the collection.

    Args:
        collected: takes it.
        row: whose it is.
        parts: one for each session.
    """
    first = parts[0]
    closing = first.seats[0].closing()
    warnings = [text for part in parts for text in part.warnings]
    collected.keep(
        row,
        first.seats[0].opening,
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
