"""What is done with a row after its rounds: passes, profiling, and closing its workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from precisionbench.errors import PrecisionBenchError, WorkerError
from precisionbench.measure.collector import Collector
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.protocol import Closing, PreparedBackend
from precisionbench.probes.run_all import PASSES
from precisionbench.results import Measurement, Passes
from precisionbench.results.evidence import Evidence
from precisionbench.system import cpu_affinity

_NO_REFERENCE = "no row could compute the model in float64"


@attrs.define
class Float64Reference:
    """The outputs of the model's layers in float64, in a file that all replicas can read.

    Attributes:
        folder: where to write the file.
        path: the file; None while there is none.
        reason: why there is none.
    """

    folder: Path
    path: str | None = None
    reason: str = _NO_REFERENCE

    def write(self, replicas: Iterable[PreparedBackend]) -> None:
        """Write the file in the process of the first replica that can.

        A process in which the backend has patched torch cannot.

        Args:
            replicas: of any rows, in the order in which to try them.
        """
        path = str(self.folder / "truth.pt")
        for prepared in replicas:
            if self.path is not None:
                return
            try:
                prepared.write_float64_reference(path)
            except WorkerError as exc:  # the next would take as long, and end likewise
                self.reason = f"{_NO_REFERENCE}: {exc.reason}"
                return
            except PrecisionBenchError as exc:
                self.reason = f"{_NO_REFERENCE}: {exc.reason}"
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
        replicas: its prepared backends, one for each worker process.
        call_s: estimated duration of a call.
        warnings: what qualifies the row's result.
        passes: what was measured besides the latency.
        output: the first call's; None where it could not be read.
        evidence: what ran in a call; None where that was not profiled.
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
        """The row of a state after its rounds.

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

    def run_probes(
        self,
        *,
        output_only: bool,
        passes: bool,
        leave_out: Collection[str] = (),
        steady: bool = True,
    ) -> None:
        """Read the first output of the first replica, and measure it besides its latency.

        Args:
            output_only: do nothing more than that, because the user wants the run to end.
            passes: also measure memory, energy and other times.
            leave_out: passes for which there is no time; names of `probes.run_all.PASSES`.
            steady: call once more, and hold the output against the first one's.
        """
        prepared = self.replicas[0]
        self._attempt(lambda: self._read_output(prepared))
        if output_only:
            return
        if passes:
            self._attempt(lambda: self._take_passes(prepared, leave_out))
        if steady:
            self._attempt(prepared.check_steady)

    def _read_output(self, prepared: WorkerBackend) -> None:
        self.output = prepared.output

    def _take_passes(self, prepared: WorkerBackend, leave_out: Collection[str]) -> None:
        known = [name for name in PASSES if name in leave_out]
        self.passes = prepared.passes(self.call_s, capture=True, leave_out=known)

    @property
    def profiled(self) -> WorkerBackend:
        """The replica to profile: the last, as a profiler would disturb the first one's passes."""
        return self.replicas[-1]

    def profile(self, reference: Float64Reference) -> None:
        """Profile the row's calls.

        Args:
            reference: the outputs of the model's layers in float64.
        """
        self._attempt(lambda: self._profile(reference))

    def _profile(self, reference: Float64Reference) -> None:
        self.evidence = reference.evidence(self.profiled, self.call_s)

    def close(self) -> None:
        """Wait until all its workers, which were asked to, have undone their backends."""
        for prepared in self.replicas:
            self._attempt(prepared.close)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do something whose failure is a warning: the row is measured already."""
        try:
            action()
        except PrecisionBenchError as exc:
            self.warnings.append(f"after it had been measured: {exc}")


def begin_profilers(row_states: Iterable[RowState]) -> None:
    """Begin to start the profiler where another replica takes the passes: both take seconds.

    Args:
        row_states: of rows whose rounds are over.
    """
    for row_state in row_states:
        if len(row_state.replicas) > 1 and not row_state.error:
            _begin_profiler(row_state.replicas[-1])


def _begin_profiler(prepared: WorkerBackend) -> None:
    prepared.worker.set_cpu_affinity(cpu_affinity.usable_cores())
    prepared.begin_profiler_start()


def profile_rows(
    finished: Sequence[tuple[Row, FinishedRow]],
    reference: Float64Reference,
    collector: Collector,
    stop_requested: Callable[[], bool],
) -> None:
    """Profile the calls of rows whose workers still run, one row at a time.

    Args:
        finished: rows that were measured; those that failed are left out.
        reference: to be written by the first row that can.
        collector: takes the progress.
        stop_requested: called before each row; true leaves out the rest.
    """
    whole = [(row, part) for row, part in finished if part.measurement.ended_by != "failed"]
    for row, part in whole:
        if len(part.replicas) == 1:  # the others have begun; see `begin_profilers`
            collector.report_row(row, "examining", step="starting the profiler")
            _begin_profiler(part.profiled)
    if stop_requested():
        return
    reference.write(part.profiled for _, part in whole)
    for row, part in whole:
        if stop_requested():
            return
        collector.report_row(row, "examining")
        part.profile(reference)


def close(parts: Sequence[FinishedRow]) -> None:
    """Let the workers of all rows undo their backends at the same time.

    Args:
        parts: rows whose workers still run.
    """
    for part in parts:
        for prepared in part.replicas:
            prepared.begin_close()
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
    closing = first.replicas[0].closing()
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


def _merged(parts: Sequence[Measurement]) -> Measurement:
    """The measurements of all sessions as one."""
    return attrs.evolve(
        parts[0],
        preparations=tuple(p for part in parts for p in part.preparations),
        blocks=tuple(block for part in parts for block in part.blocks),
        ended_by=parts[-1].ended_by,
    )
