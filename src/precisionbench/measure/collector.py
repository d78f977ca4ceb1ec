"""Collects the results of a run: rows, failures, agreement, progress, journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from precisionbench.errors import BackendUnavailableError, PrecisionBenchError
from precisionbench.measure.guard import Dispensable, warned
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RowState
from precisionbench.measure.stopping import few_rounds_warnings
from precisionbench.measure.time_budget import TimeBudget
from precisionbench.measure.time_estimate import TimeEstimate
from precisionbench.measure.worker.first_call_limit import SlowFirstCallError
from precisionbench.measure.worker.guards import drop_frames
from precisionbench.measure.worker.protocol import Closing, Opening
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    Measurement,
    Passes,
    RoundConditions,
)
from precisionbench.results.comparison_data import CALL
from precisionbench.results.evidence import Evidence
from precisionbench.results.journal import Journal
from precisionbench.results.json_values import Json
from precisionbench.results.progress import OnProgress, Progress
from precisionbench.statistics import Interval
from precisionbench.torchtools.agreement import compare_tensors, first_items


class Collector:
    """Collects results and failures by row, reports progress, and writes the journal.

    Outputs are compared with those of their references as soon as these are there.

    Args:
        rows: all rows of the run.
        reference: name of the reference row.
        batch_size: items in one call; None where it is not known.
        row_warnings: warnings that every row carries.
        on_progress: called at each step; None for no progress.
        journal: takes blocks as they are finished.
        estimate: of the time that is left; None for no estimate.
        references: rows that are compared with another row than `reference`, and that row.

    Attributes:
        results: measured rows, by name.
        failures: rows that could not be measured, by name.
        errors: the errors of those rows, by name.
        run_notes: warnings about the run as a whole.
        conditions: other load on the machine, by round.
        left_out: names of rows that were left out because a call takes too long, by the reason.
        progress: reports progress until that fails.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        reference: str,
        batch_size: int | None,
        row_warnings: tuple[str, ...] = (),
        on_progress: OnProgress | None = None,
        journal: Journal | None = None,
        estimate: TimeEstimate | None = None,
        references: Mapping[str, str] | None = None,
    ) -> None:
        self.rows, self.reference, self.batch_size = rows, reference, batch_size
        self.references = dict(references or {})
        self.results: dict[str, BackendResult] = {}
        self.failures: dict[str, BackendFailure] = {}
        self.errors: dict[str, PrecisionBenchError] = {}
        self.run_notes: list[str] = []
        self.conditions: list[RoundConditions] = []
        self.left_out: dict[str, list[str]] = {}
        self._row_warnings, self._on_progress, self._journal = row_warnings, on_progress, journal
        self.progress = Dispensable("on_progress", self.add_note, is_ours=False)
        self._writing = Dispensable("writing the journal", self.add_note)
        self._outputs: dict[str, Mapping[str, Any]] = {}
        self._reported_failures: set[str] = set()
        self._begun_s, self._estimate = time.monotonic(), estimate

    def reference_of(self, row: str) -> str:
        """The row that a row is compared with.

        Args:
            row: name of the row.
        """
        return self.references.get(row, self.reference)

    def add_note(self, text: str) -> None:
        """Add a warning about the run as a whole, once."""
        if text not in self.run_notes:
            self.run_notes.append(text)

    @property
    def reports_progress(self) -> bool:
        """Whether there is a callback for progress."""
        return self._on_progress is not None and not self.progress.failed

    def report_row(self, row: Row, stage: str, message: str = "", step: str = "") -> None:
        """Report the stage of a row.

        Args:
            row: the row.
            stage: as in `Progress`.
            message: the reason, where the row failed.
            step: what is done now within the stage.
        """
        position = 1 + [other.name for other in self.rows].index(row.name)
        self._report(Progress(row.name, stage, position, len(self.rows), message, step=step))

    def report_failure(self, row: Row, message: str) -> None:
        """Report that a row has failed; only the first time for each row.

        Args:
            row: the row.
            message: the reason.
        """
        if row.name not in self._reported_failures:
            self._reported_failures.add(row.name)
            self.report_row(row, "failed", message)

    def report_run(
        self,
        stage: str,
        position: int = 0,
        total: int = 0,
        remaining_s: float | None = None,
        speedups: Mapping[str, Interval] | None = None,
    ) -> None:
        """Report the stage of all rows together; see `Progress` for the arguments."""
        known = dict(speedups or {})
        self._report(Progress("", stage, position, total, remaining_s=remaining_s, speedups=known))

    def _report(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self.progress.do(partial(self._call, self._on_progress, progress))

    def _call(self, on_progress: OnProgress, progress: Progress) -> None:
        left_s = progress.remaining_s
        if self._estimate is not None:
            left_s = self._estimate.remaining_s(progress)
        elapsed_s = time.monotonic() - self._begun_s
        on_progress(attrs.evolve(progress, elapsed_s=elapsed_s, remaining_s=left_s))

    def _write(self, write: Callable[[Journal], object]) -> None:
        """Write to the journal, where there is one and that has not failed yet."""
        if self._journal is not None:
            self._writing.do(partial(write, self._journal))

    def plan_rounds(self, budget: TimeBudget, row_states: Sequence[RowState]) -> None:
        """Correct the estimate of the time that is left, once all rows are prepared.

        Args:
            budget: of the session.
            row_states: of the rows that are ready.
        """
        if self._estimate is not None:
            self._estimate.plan_rounds(budget, row_states)

    def record_restarts(self, limit_s: float) -> None:
        """Write to the journal that all rows are measured again, and restarted in each round.

        Args:
            limit_s: seconds that this may take.
        """
        if self._estimate is not None:
            self._estimate.only_rounds(limit_s)
        self.record_schedule("restarts")

    def record_schedule(self, schedule: str) -> None:
        """Drop what was sampled, as all rows are measured again on another schedule."""
        self.conditions.clear()
        self._write(lambda journal: journal.change_schedule(schedule))

    def record_conditions(self, **fields: Json) -> None:
        """Write fields of the result's header to the journal as soon as they are known."""
        self._write(lambda journal: journal.add_header_fields(**fields))

    def record_round_conditions(self, conditions: RoundConditions) -> None:
        """Keep the other load on the machine during some rounds, also in the journal."""
        self.conditions.append(conditions)
        self._write(lambda journal: journal.add_conditions(conditions))

    def record_block(self, row_state: RowState) -> None:
        """Write a row's newest block to the journal."""
        self._write(partial(self._write_block, row_state))

    def _write_block(self, row_state: RowState, journal: Journal) -> None:
        newest = row_state.blocks[-1]
        if not journal.has_row(row_state.name, newest.session):
            row = next(row for row in self.rows if row.name == row_state.name)
            so_far = row_state.measurement("interrupted")
            result = self._result(row, row_state.openings[0], so_far, Closing(), Passes())
            journal.add_row(result, newest.session)
        journal.add_block(row_state.name, newest)

    def add_result(
        self,
        row: Row,
        opening: Opening,
        measurement: Measurement,
        closing: Closing,
        passes: Passes,
        output: Mapping[str, Any] | None,
        evidence: Evidence | None,
    ) -> None:
        """Add a measured row.

        Args:
            row: the row.
            opening: of its first replica.
            measurement: its times.
            closing: of its first replica.
            passes: memory, energy and other times.
            output: of the first call; None where there is none to compare.
            evidence: what ran in a call; None where that was not profiled.
        """
        warnings = (*closing.warnings, *few_rounds_warnings(measurement, row.spec != CALL))
        known = attrs.evolve(closing, warnings=warnings)
        result = self._result(row, opening, measurement, known, passes)
        self.results[row.name] = attrs.evolve(result, evidence=evidence)
        if output is not None:
            self._outputs[row.name] = output
            self._compare_outputs()
        self.report_row(row, "done")

    def _result(
        self,
        row: Row,
        opening: Opening,
        measurement: Measurement,
        closing: Closing,
        passes: Passes,
    ) -> BackendResult:
        warnings = (*self._row_warnings, *closing.warnings)
        return BackendResult(
            **row.identity,
            batch_size=opening.batch_size or self.batch_size,
            measurement=measurement,
            flags=opening.flags,
            details=opening.details,
            engine_operations=opening.engine_operations,
            warnings=tuple(dict.fromkeys(warnings)),
            log=closing.log,
            passes=passes,
            claims=row.claims,
        )

    def _compare_outputs(self) -> None:
        """Compare outputs with their references', once these are there, and let go of them."""
        for name in list(self._outputs):
            reference = self.reference_of(name)
            if reference in self._outputs:
                self._compare_output(name, reference)
                if name != reference:
                    del self._outputs[name]

    def _compare_output(self, name: str, reference: str) -> None:
        result, base = self.results[name], self.results[reference]
        output, expected = self._outputs[name], self._outputs[reference]
        if result.agreement is not None:
            return
        with warned(partial(self._warn, name), "the output could not be compared"):
            both = self._items_of_both(name, output, expected)
            if result.model == base.model or _have_same_shapes(*both):
                self.results[name] = attrs.evolve(result, agreement=compare_tensors(*both))

    def _warn(self, name: str, text: str) -> None:
        """Add a warning to a row's result."""
        result = self.results[name]
        if text not in result.warnings:
            self.results[name] = attrs.evolve(result, warnings=(*result.warnings, text))

    def _items_of_both(
        self, name: str, output: Mapping[str, Any], expected: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Both outputs, cut to the smaller batch where the two differ."""
        pair = name, self.reference_of(name)
        mine, theirs = (self.results[row].batch_size for row in pair)
        if mine == theirs or mine is None or theirs is None:
            return output, expected
        count = min(mine, theirs)
        return first_items(output, mine, count), first_items(expected, theirs, count)

    def add_failure(self, row: Row, error: PrecisionBenchError) -> None:
        """Add a row that could not be measured; one whose first call is slow is left out instead.

        Args:
            row: the row.
            error: why.
        """
        drop_frames(error)
        if isinstance(error, SlowFirstCallError):
            self._leave_out(row, error.reason)
            return
        self.errors[row.name] = error
        self.failures[row.name] = BackendFailure(
            **row.identity,
            error=type(error).__name__,
            reason=error.reason,
            remedy=error.remedy,
        )
        self._write(lambda journal: journal.add_failure(self.failures[row.name]))
        self.report_failure(row, str(error))

    def _leave_out(self, row: Row, reason: str) -> None:
        self.report_row(row, "left_out", reason)
        self.rows = [other for other in self.rows if other.name != row.name]
        self.left_out.setdefault(reason, []).append(row.name)
        self._write(lambda journal: journal.leave_out(row.name))

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the run as a whole, and which rows were left out."""
        return (
            *self.run_notes,
            *(_left_out_note(names, reason) for reason, names in self.left_out.items()),
        )

    def raise_if_nothing_measured(self) -> None:
        """Raise an error where no row could be measured.

        Raises:
            PrecisionBenchError: the reference's own error, or another row's where the reference
                is only unavailable.
        """
        if self.results:
            return
        errors = {self.reference: self.errors[self.reference], **self.errors}
        tried = [n for n, e in errors.items() if not isinstance(e, BackendUnavailableError)]
        name = tried[0] if tried else self.reference
        errors[name].reason = f"{name}: {errors[name].reason}"
        raise errors[name]


def _have_same_shapes(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether outputs of two models can be compared, element by element."""
    shapes = [{path: tensor.shape for path, tensor in one.items()} for one in (output, expected)]
    return shapes[0] == shapes[1]


def _left_out_note(names: Sequence[str], reason: str) -> str:
    options = " ".join(f"-b {name}" for name in names)
    verb, pronoun = ("was", "it") if len(names) == 1 else ("were", "them")
    return (
        f"{', '.join(names)} {verb} left out: {reason}; "
        f"to measure {pronoun} anyway, name {pronoun} ({options})"
    )
