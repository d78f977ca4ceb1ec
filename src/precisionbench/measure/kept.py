"""Workers that are kept after the rows of a comparison, and measured again beside new ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import attrs

from precisionbench.errors import OutOfMemoryError
from precisionbench.measure import finish
from precisionbench.measure.collector import Collector
from precisionbench.measure.conditions import share_cores
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.interleaved import interrupted, measure_rounds
from precisionbench.measure.options import Options
from precisionbench.measure.replicas import (
    CrowdedError,
    WorkerStarter,
    open_replicas,
    replica_count,
)
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run
from precisionbench.measure.schedule import RowState
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.probes.timing import NOT_CAPTURABLE
from precisionbench.results import ComparisonData
from precisionbench.results.progress import OnProgress


@attrs.frozen
class KeptWorkers:
    """The workers of a comparison whose rows are finished, and what starts more beside them.

    Attributes:
        run: of the comparison.
        starter: starts further workers on the same workloads.
        data: the comparison so far.
    """

    run: Run
    starter: WorkerStarter
    data: ComparisonData

    def measure(
        self, rows: Sequence[Row], options: Options, on_progress: OnProgress | None
    ) -> ComparisonData:
        """Measure rows in common rounds, those of a kept name in the workers of that row.

        Args:
            rows: what to measure; the first is the reference.
            options: how to measure.
            on_progress: as for `compare`.

        Returns:
            The rows; a row that could not be measured is one of the failures.

        Raises:
            CrowdedError: the new workers have no room on the device beside the kept ones.
            DoesNotFitError: nor in the host's memory.
        """
        ours = self.run
        options = attrs.evolve(options, noise_floor=ours.options.noise_floor)
        collector = Collector(rows, rows[0].name, ours.collector.batch_size, (), on_progress)
        run = Run(ours.workloads, collector, options, ours.system)
        run.shared_cores = ours.shared_cores
        run.leave_out_unavailable()
        kept = {row.name: self._kept(row) for row in run.rows}
        states = [RowState(name, replicas) for name, replicas in kept.items() if replicas]
        new = [row for row in run.rows if not kept[row.name]]
        with self._stopped_by_interrupt(), self._opened(run, new) as opened, run.interrupts.held():
            states += opened
            run.interrupts.also_call(self.starter.pool.stop)
            for state in states:  # those that were profiled had all cores
                share_cores(run, state.replicas, state.warnings.append)
            measure_rows(run, states)
        return attrs.evolve(
            self.data,
            reference=rows[0].name,
            references={},
            results=tuple(collector.results.values()),
            failures=tuple(collector.failures.values()),
            notes=tuple(collector.run_notes),
            conditions=(),  # idle workers of the comparison would count as others' processes
        )

    @contextlib.contextmanager
    def _stopped_by_interrupt(self) -> Iterator[None]:
        """Leave no time to workers that are busy when the user ends the experiments."""
        try:
            yield
        except KeyboardInterrupt:
            self.starter.pool.stop()
            raise

    def _kept(self, row: Row) -> list[WorkerBackend]:
        """Replicas of a row of this name that can be measured again; empty where too few can.

        One replica is enough only where the variance between processes is known.
        """
        parts = self.run.finished.get(row.name)
        if not parts:
            return []
        replicas = unspoiled(parts[-1], self.run.device.type, self.run.options)
        return replicas if len(replicas) > 1 or self.run.noise_floor else []

    @contextlib.contextmanager
    def _opened(self, run: Run, rows: Sequence[Row]) -> Iterator[list[RowState]]:
        """New workers of rows, prepared while others are, and killed at the end."""
        if not rows:
            yield []
            return
        everything, run.rows = run.rows, list(rows)
        count = replica_count(run)
        run.collector.report_run("starting", total=count * len(rows))
        starter = self.starter.with_backends(rows)
        workers = {row.name: [starter.start(row) for _ in range(count)] for row in rows}
        try:
            starter.pool.wait_until_loaded()
            states = list(open_replicas(run, workers, 0).values())
            _raise_if_crowded(run, rows)
            run.rows = [row for row in everything if row in run.rows or row not in rows]
            yield states
        finally:
            for worker in (worker for few in workers.values() for worker in few):
                worker.kill()


def _raise_if_crowded(run: Run, rows: Sequence[Row]) -> None:
    """A row that ran out of memory beside the kept workers may fit without them."""
    for row in rows:
        if isinstance(run.collector.errors.get(row.name), OutOfMemoryError):
            raise CrowdedError(row)


def unspoiled(part: FinishedRow, device_type: str, options: Options) -> list[WorkerBackend]:
    """The replicas of a finished row that are as fast as before.

    On a GPU a process keeps CUPTI loaded after it was profiled, which makes launches slower, and
    a graph whose capture failed can leave its process in any state.

    Args:
        part: the row, after its passes and its profile.
        device_type: such as `cuda`.
        options: how it was measured.
    """
    replicas = [] if part.measurement.ended_by == "failed" else list(part.replicas)
    if device_type != "cuda":
        return replicas
    profiled = [part.profiled] if options.evidence else []
    reason = part.passes.unknown.get("graph", "")
    captured = [part.replicas[0]] if reason.startswith(NOT_CAPTURABLE) else []
    return [one for one in replicas if one not in (*profiled, *captured)]


def measure_rows(run: Run, row_states: Sequence[RowState]) -> None:
    """Run the rounds, and add each row to the results or, where a worker failed, the failures.

    Args:
        run: takes the results.
        row_states: of the rows that are ready.
    """
    ended_by = measure_rounds(run, row_states)
    by_name = {state.name: state for state in row_states}
    for row in list(run.rows):
        state = by_name[row.name]
        if state.error is not None:
            run.fail(row, state.error)
        elif state.complete_rounds:
            part = FinishedRow.of(state, ended_by)
            if run.options.passes and ended_by != "interrupted":
                leave_out = run.leave_out_of(row, by_name)
                part.run_probes(
                    output_only=False,
                    passes=run.options.pass_names,
                    leave_out=leave_out,
                    steady=False,
                    capture=False,
                )
            finish.add_to(run.collector, row, [part])
        else:
            run.fail(row, interrupted())
