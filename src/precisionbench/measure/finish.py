"""Finishes a row after its rounds: passes, profiling, and closing its workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from precisionbench.errors import FOREIGN_ERRORS, WorkerError
from precisionbench.measure.budget_clock import BudgetClock
from precisionbench.measure.collector import Collector
from precisionbench.measure.guard import explained, warned
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.protocol import Closing, PreparedBackend
from precisionbench.probes.run_all import NO_TIME, NOT_WANTED
from precisionbench.results import Measurement, Passes
from precisionbench.results.evidence import Evidence
from precisionbench.results.passes import PASSES
from precisionbench.system import cpu_affinity

_NO_REFERENCE = "the model could not be computed in float64"
_AFTER_ROUNDS = "after the measurement"


@attrs.define
class Float64Reference:
    """The outputs of the model's layers in float64, in a file that all replicas can read.

    Attributes:
        folder: where to write the file.
        path: the file; None while there is none.
        reason: why there is none.
        clock: of the budget.
        number: of the model, from 0; each has a file of its own.
    """

    folder: Path
    path: str | None = None
    reason: str = _NO_REFERENCE
    clock: BudgetClock = attrs.field(factory=BudgetClock)
    number: int = 0

    @classmethod
    def of_models(
        cls, folder: Path, models: Iterable[str], clock: BudgetClock
    ) -> dict[str, Float64Reference]:
        """A reference for each model, by its name.

        Args:
            folder: where to write the files.
            models: names of the models.
            clock: of the budget.
        """
        return {
            model: cls(folder, clock=clock, number=number) for number, model in enumerate(models)
        }

    def write(
        self, replicas: Iterable[PreparedBackend], spare: Iterable[PreparedBackend] = ()
    ) -> None:
        """Write the file in the process of the first replica that can.

        A process in which the backend has patched torch cannot. Where one ends or hangs, the model
        may be the reason, and the processes that are still to be profiled are not risked.

        Args:
            replicas: of any rows, in the order in which to try them.
            spare: replicas that are not needed any more, to try once where a process has ended.
        """
        with contextlib.suppress(WorkerError):
            try:
                self._write_in_one_of(replicas)
            except WorkerError:
                self._write_in_one_of(spare)

    def _write_in_one_of(self, replicas: Iterable[PreparedBackend]) -> None:
        for prepared in replicas:
            if self.path is not None:
                return
            self._write_in(prepared)

    def _write_in(self, prepared: PreparedBackend) -> None:
        path = str(self.folder / f"float64-{self.number}.pt")
        try:
            with self.clock.uncounted_if_it_fails():
                prepared.write_float64_reference(path)
        except FOREIGN_ERRORS as exc:
            self.reason = f"{_NO_REFERENCE}: {explained(exc).reason}"
            if isinstance(exc, WorkerError):
                raise
        else:
            self.path = path

    def evidence(self, prepared: PreparedBackend, call_s: float) -> Evidence:
        """Profile a replica's calls, and measure how far its layers are from float64.

        Args:
            prepared: the replica.
            call_s: estimated duration of a call.

        Raises:
            PrecisionBenchError: a call failed.
        """
        found = prepared.evidence(call_s, self.path)
        if self.path is not None:
            return found
        return attrs.evolve(found, unknown={**found.unknown, "errors": self.reason})


@attrs.define
class FinishedRow:
    """What one session gives for a row.

    Attributes:
        measurement: the times of its blocks.
        replicas: its prepared backends, one for each process.
        call_s: estimated duration of a call.
        warnings: what qualifies the row's result.
        passes: what was measured besides the latency.
        output: the first call's; None where it could not be read.
        evidence: what ran in a call; None where that was not profiled.
        clock: of the budget, which does not count the time of what fails.
        lost: replicas whose workers have ended or hang; nothing more is asked of them.
    """

    measurement: Measurement
    replicas: Sequence[Any]  # of PreparedBackend, or WorkerBackend, as in `RowState`
    call_s: float
    warnings: list[str]
    passes: Passes = attrs.field(factory=Passes)
    output: Mapping[str, object] | None = None
    evidence: Evidence | None = None
    clock: BudgetClock = attrs.field(factory=BudgetClock)
    lost: list[Any] = attrs.field(factory=list)

    @classmethod
    def of(
        cls, row_state: RowState, ended_by: str, clock: BudgetClock | None = None
    ) -> FinishedRow:
        """The row of a state after its rounds.

        Args:
            row_state: with at least one block.
            ended_by: what ended the rounds.
            clock: of the budget; None where there is none.
        """
        done = cls(
            row_state.measurement(ended_by),
            row_state.replicas,
            row_state.call_s,
            row_state.warnings,
            clock=clock or BudgetClock(),
        )
        if row_state.error is not None:
            done._keep_rounds_of(row_state, row_state.error)
        return done

    def _keep_rounds_of(self, row_state: RowState, error: Exception) -> None:
        self.warnings.append(
            f"it failed after {row_state.complete_rounds} rounds, which are kept: {error}"
        )
        if isinstance(error, WorkerError) and row_state.failed_replica is not None:
            self.lost.append(self.replicas[row_state.failed_replica])

    def run_probes(
        self,
        *,
        output_only: bool,
        passes: Collection[str],
        leave_out: Collection[str] = (),
        steady: bool = True,
        capture: bool = True,
    ) -> None:
        """Read the first output of the first replica, and measure it besides its latency.

        Args:
            output_only: do nothing more than that, because the user wants the run to end.
            passes: which are wanted, by their names of `results.passes.PASSES`; without any,
                memory is not measured either.
            leave_out: what there is no time for.
            steady: call once more, and compare the output with the first one's.
            capture: also try a CUDA graph; a capture that fails can spoil the process.
        """
        prepared: PreparedBackend = self.replicas[0]
        self._attempt(prepared, lambda: self._read_output(prepared))
        if output_only:
            return
        if passes:
            reasons = _not_taken(passes, leave_out)
            self._attempt(prepared, lambda: self._take_passes(prepared, reasons, capture))
        if steady:
            self._attempt(prepared, prepared.check_steady)

    def _read_output(self, prepared: PreparedBackend) -> None:
        self.output = prepared.output

    def _take_passes(
        self, prepared: PreparedBackend, reasons: Mapping[str, str], capture: bool
    ) -> None:
        self.passes = prepared.passes(self.call_s, capture=capture, leave_out=reasons)

    @property
    def profiled(self) -> Any:
        """The replica to profile: the last, as a profiler would disturb the first one's passes."""
        return self.replicas[-1]

    @property
    def spare(self) -> Sequence[PreparedBackend]:
        """A replica that is not profiled, where there is one: preferably without the passes."""
        return [one for one in self.replicas[-2:-1] if not self._is_lost(one)]

    def is_ready_to_profile(self) -> bool:
        """Wait until its profiler has started; whether the worker to profile still runs."""
        self._attempt(self.profiled, self.profiled.finish_profiler_start)
        return not self._is_lost(self.profiled)

    def profile(self, reference: Float64Reference) -> None:
        """Profile the row's calls.

        Args:
            reference: the outputs of the model's layers in float64.
        """
        self._attempt(self.profiled, lambda: self._profile(reference))

    def _profile(self, reference: Float64Reference) -> None:
        self.evidence = reference.evidence(self.profiled, self.call_s)

    def begin_close(self) -> None:
        """Ask all its workers to undo their backends."""
        for prepared in self.replicas:
            self._attempt(prepared, prepared.begin_close)

    def close(self) -> None:
        """Wait until all its workers, which were asked to, have undone their backends."""
        for prepared in self.replicas:
            self._attempt(prepared, prepared.close)

    def _attempt(self, prepared: object, action: Callable[[], object]) -> None:
        """Ask something of a replica whose failure is a warning: the row is measured already."""
        if self._is_lost(prepared):
            return
        try:
            with self.clock.uncounted_if_it_fails():
                action()
        except FOREIGN_ERRORS as exc:
            self.warn(exc)
            if isinstance(exc, WorkerError):
                self.lost.append(prepared)

    def _is_lost(self, prepared: object) -> bool:
        return any(one is prepared for one in self.lost)

    def warn(self, exc: BaseException) -> None:
        """Add a warning of what failed after the rounds.

        Args:
            exc: of any kind.
        """
        self.warnings.append(f"{_AFTER_ROUNDS}: {explained(exc)}")


def begin_profilers(row_states: Iterable[RowState]) -> None:
    """Begin to start the profiler where another replica takes the passes: both take seconds.

    Args:
        row_states: of rows whose rounds are over.
    """
    for row_state in row_states:
        if len(row_state.replicas) > 1 and not row_state.error:
            _begin_profiler(row_state.replicas[-1], row_state.warnings)


def _begin_profiler(prepared: WorkerBackend, warnings: list[str]) -> None:
    with warned(warnings.append, _AFTER_ROUNDS):
        prepared.worker.set_cpu_affinity(cpu_affinity.usable_cores())
        prepared.begin_profiler_start()


def profile_rows(
    finished: Sequence[tuple[Row, FinishedRow]],
    references: Mapping[str, Float64Reference],
    collector: Collector,
    stop_requested: Callable[[], bool],
) -> None:
    """Profile the calls of rows whose workers still run, one row at a time.

    Args:
        finished: rows that were measured; those that failed are left out.
        references: of each model, to be written by the first of its rows that can.
        collector: takes the progress.
        stop_requested: called before each row; true leaves out the rest.
    """
    whole = [(row, part) for row, part in finished if part.measurement.ended_by != "failed"]
    for row, part in whole:
        if len(part.replicas) == 1:  # the others have begun; see `begin_profilers`
            collector.report_row(row, "examining", step="starting the profiler")
            _begin_profiler(part.profiled, part.warnings)
    if stop_requested():
        return
    for model, reference in references.items():
        own = [part for row, part in whole if row.model == model]
        spare = [prepared for part in reversed(own) for prepared in part.spare]
        reference.write((p.profiled for p in own if p.is_ready_to_profile()), spare)
    for row, part in whole:
        if stop_requested():
            return
        collector.report_row(row, "examining")
        part.profile(references[row.model])


def close(parts: Sequence[FinishedRow]) -> None:
    """Let the workers of all rows undo their backends at the same time.

    Args:
        parts: rows whose workers still run.
    """
    for part in parts:
        part.begin_close()
    for part in parts:
        part.close()


def add_to(collector: Collector, row: Row, parts: Sequence[FinishedRow]) -> None:
    """Add the row of all its sessions to the results.

    Args:
        collector: takes it.
        row: the row.
        parts: one for each session.
    """
    first = parts[0]
    closing = _closing_of(first.replicas)
    warnings = [text for part in parts for text in part.warnings]
    collector.add_result(
        row,
        first.replicas[0].opening,
        _merged([part.measurement for part in parts]),
        Closing((*closing.warnings, *warnings), closing.log),
        first.passes,
        first.output,
        first.evidence,
    )


def _not_taken(wanted: Collection[str], leave_out: Collection[str]) -> dict[str, str]:
    """Why passes are not taken, by their names."""
    late = {name: NO_TIME for name in PASSES if name in leave_out}
    return late | {name: NOT_WANTED for name in PASSES if name not in wanted}


def _closing_of(replicas: Sequence[PreparedBackend]) -> Closing:
    """The first replica's, or another one's where its worker has ended without an answer."""
    said = (prepared.closing() for prepared in replicas)
    return next((closing for closing in said if closing != Closing()), Closing())


def _merged(parts: Sequence[Measurement]) -> Measurement:
    """The measurements of all sessions as one."""
    return attrs.evolve(
        parts[0],
        preparations=tuple(p for part in parts for p in part.preparations),
        blocks=tuple(block for part in parts for block in part.blocks),
        ended_by=parts[-1].ended_by,
    )
