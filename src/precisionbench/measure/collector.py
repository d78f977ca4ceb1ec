"""What comes of the rows of a run while it goes on: results, failures, and agreement."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from precisionbench.errors import BackendUnavailableError, PrecisionBenchError
from precisionbench.measure.rounds import RowState, few_rounds
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.local import drop_frames
from precisionbench.measure.worker.protocol import Closing, Opening
from precisionbench.results.evidence import Evidence
from precisionbench.results.journal import Journal
from precisionbench.results.progress import OnProgress, Progress
from precisionbench.results.records import (
    BackendFailure,
    BackendResult,
    Json,
    Measurement,
    Passes,
)
from precisionbench.statistics import Interval
from precisionbench.torchtools.agreement import compare_tensors, first_items


class Collected:
    """Results and failures by row, and agreement as soon as there is a reference.

    Args:
        rows: all rows of the run.
        reference: name of the reference row.
        batch_size: items in one call, where that is known.
        notes: what every row must say.
        tell: is told of progress; None where nobody listens.
        journal: takes blocks as they are finished.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        reference: str,
        batch_size: int | None,
        notes: tuple[str, ...],
        tell: OnProgress | None,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self.rows, self.reference = rows, reference
        self.batch_size, self.notes, self._tell = batch_size, notes, tell
        self.results: dict[str, BackendResult] = {}
        self.failures: dict[str, BackendFailure] = {}
        self.errors: dict[str, PrecisionBenchError] = {}
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self.run_notes: list[str] = []
        self._told_broken: set[str] = set()
        self._begun_s = time.monotonic()

    def note(self, text: str) -> None:
        """Keep what a reader must know of the whole run, once."""
        if text not in self.run_notes:
            self.run_notes.append(text)

    @property
    def is_followed(self) -> bool:
        """Whether somebody is told of progress."""
        return self._tell is not None

    def tell(self, row: Row, stage: str, message: str = "", step: str = "") -> None:
        """Say how far a row is."""
        position = 1 + [other.name for other in self.rows].index(row.name)
        self._say(Progress(row.name, stage, position, len(self.rows), message, step=step))

    def tell_broken(self, row: Row, message: str) -> None:
        """Say that a row has failed, when it does and only then."""
        if row.name not in self._told_broken:
            self._told_broken.add(row.name)
            self.tell(row, "failed", message)

    def tell_of_all(
        self,
        stage: str,
        position: int = 0,
        total: int = 0,
        remaining_s: float | None = None,
        speedups: Mapping[str, Interval] | None = None,
    ) -> None:
        """Say how far all rows together are."""
        known = dict(speedups or {})
        self._say(Progress("", stage, position, total, remaining_s=remaining_s, speedups=known))

    def _say(self, progress: Progress) -> None:
        if self._tell is not None:
            elapsed_s = time.monotonic() - self._begun_s
            self._tell(attrs.evolve(progress, elapsed_s=elapsed_s))

    def begin_anew(self, schedule: str) -> None:
        """Tell the journal that all rows are measured anew, in another way."""
        if self._journal is not None:
            self._journal.schedule(schedule)

    def decided(self, **fields: Json) -> None:
        """Tell the journal how rows are measured, as soon as that is known."""
        if self._journal is not None:
            self._journal.conditions(**fields)

    def write_down(self, row_state: RowState) -> None:
        """Add a row's newest block to the journal."""
        if self._journal is None:
            return
        newest = row_state.blocks[-1]
        if not self._journal.has(row_state.name, newest.session):
            row = next(row for row in self.rows if row.name == row_state.name)
            so_far = row_state.measurement("interrupted")
            result = self._result(row, row_state.openings[0], so_far, Closing(), Passes())
            self._journal.row(result, newest.session)
        self._journal.block(row_state.name, newest)

    def keep(
        self,
        row: Row,
        opening: Opening,
        measurement: Measurement,
        closing: Closing,
        passes: Passes,
        output: Mapping[str, Any] | None,
        evidence: Evidence | None,
    ) -> None:
        """Keep a row that was measured; without an output it is compared with none."""
        known = attrs.evolve(closing, warnings=(*closing.warnings, *few_rounds(measurement)))
        result = self._result(row, opening, measurement, known, passes)
        self.results[row.name] = attrs.evolve(result, evidence=evidence)
        if output is not None:
            self._outputs[row.name] = output
            self._compare_outputs()
        self.tell(row, "done")

    def _result(
        self,
        row: Row,
        opening: Opening,
        measurement: Measurement,
        closing: Closing,
        passes: Passes,
    ) -> BackendResult:
        warnings = (*self.notes, *closing.warnings)
        return BackendResult(
            **row.identity,
            batch_size=opening.batch_size or self.batch_size,
            measurement=measurement,
            flags=opening.flags,
            details=opening.details,
            warnings=tuple(dict.fromkeys(warnings)),
            log=closing.log,
            passes=passes,
            claims=row.claims,
        )

    def _compare_outputs(self) -> None:
        """Compare what has not been compared yet, as soon as there is a reference."""
        if self.reference not in self._outputs:
            return
        expected = self._outputs[self.reference]
        for name, output in self._outputs.items():
            if self.results[name].agreement is None:
                agreement = compare_tensors(*self._items_of_both(name, output, expected))
                self.results[name] = attrs.evolve(self.results[name], agreement=agreement)
        self._outputs = {self.reference: expected}

    def _items_of_both(
        self, name: str, output: Mapping[str, Any], expected: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The items that a row of another batch has in common with the reference."""
        mine, theirs = (self.results[row].batch_size for row in (name, self.reference))
        if mine == theirs or mine is None or theirs is None:
            return output, expected
        count = min(mine, theirs)
        return first_items(output, mine, count), first_items(expected, theirs, count)

    def fail(self, row: Row, error: PrecisionBenchError) -> None:
        """Keep why a row could not be measured."""
        drop_frames(error)
        self.errors[row.name] = error
        self.failures[row.name] = BackendFailure(
            **row.identity,
            error=type(error).__name__,
            reason=error.reason,
            remedy=error.remedy,
        )
        if self._journal is not None:
            self._journal.failure(self.failures[row.name])
        self.tell_broken(row, str(error))

    def raise_if_nothing_measured(self) -> None:
        """The reference's own error, or another's where the reference is merely unavailable."""
        if self.results:
            return
        errors = {self.reference: self.errors[self.reference], **self.errors}
        tried = [n for n, e in errors.items() if not isinstance(e, BackendUnavailableError)]
        name = tried[0] if tried else self.reference
        errors[name].reason = f"{name}: {errors[name].reason}"
        raise errors[name]
