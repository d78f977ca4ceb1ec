"""All rows at once, each replica in a worker process of its own, in interleaved rounds."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from precisionbench._internal.interrupts import Interrupts
from precisionbench.errors import MeasurementError, OutOfMemoryError, PrecisionBenchError
from precisionbench.measure import finish
from precisionbench.measure.collector import Collected
from precisionbench.measure.examination import Float64Reference
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.live_speedups import LiveSpeedups
from precisionbench.measure.options import Options, Outcome, shared_cores
from precisionbench.measure.rounds import (
    MAX_ROUNDS,
    RoundStatus,
    RowState,
    Schedule,
    run_rounds,
    single_rounds,
)
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.client import Worker, WorkerBackend, WorkerPool
from precisionbench.measure.worker.session import check_available
from precisionbench.model.workload import Workload
from precisionbench.system import cpu_affinity, nvml
from precisionbench.system.memory import free_device_bytes, workers_that_fit
from precisionbench.system.telemetry import watching

# Two processes of the same code differ on a GPU; three tell by how much
# (docs/between-processes.md).
_REPLICAS = {"cuda": 3}
_REPLICAS_ELSEWHERE = 2
# A backend that takes longer than this to build gets one replica only.
_LONG_BUILD_S = 60.0
# A further replica must find this many times the device memory that the first one took.
_HEADROOM = 1.2
# Building is not counted in the budget; where it comes again in every round, all together may
# take so many times as long.
_RESTARTS_LIMIT = 3.0


class _DoesNotFitError(Exception):
    """The device or the host cannot hold one worker of every row."""


class _CrowdedError(Exception):
    """A row found no memory beside the others; it may well fit alone."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.name)
        self.row = row


def measure(workload: Workload, collected: Collected, options: Options) -> Outcome:
    """Measure every row in worker processes.

    Args:
        workload: the model and inputs.
        collected: holds the rows, and takes what comes of each.
        options: how.

    Returns:
        How they were measured in the end.

    Raises:
        WorkloadError: the model cannot be sent to a worker.
        KeyboardInterrupt: the user stopped it before anything was measured, or a second time.
    """
    run = _Run(workload, collected, options)
    schedule = "rounds"
    try:
        for session in range(options.sessions):
            run.session(session)
    except _DoesNotFitError as exc:
        collected.note(
            f"{exc}; each row was started anew in every round, so slow drift is cancelled in part "
            "only. Use a smaller batch, or fewer backends, to measure them side by side"
        )
        collected.begin_anew("restarts")
        run.restarts()
        schedule = "restarts"
    run.tell_what_was_interrupted()
    for row in collected.rows:
        if row.name in run.finished:
            finish.keep(collected, row, run.finished[row.name])
    return Outcome(schedule, run.shared_cores)


class _Run:
    """One run: row_states of every session, and what their workers left behind."""

    def __init__(self, workload: Workload, collected: Collected, options: Options) -> None:
        self.workload, self.collected, self.options = workload, collected, options
        self.rng = random.Random(workload.seed)
        device_type = workload.device.type
        self.noise_floor = options.noise_floor_on(device_type)
        self.budget_s = options.total_budget_s(device_type, len(collected.rows))
        self.interrupts = Interrupts(lambda: collected.tell_of_all("interrupted"))
        self.live_speedups = LiveSpeedups(collected.reference, self.noise_floor)
        self.rows = [row for row in collected.rows if self._is_available(row)]
        self.finished: dict[str, list[FinishedRow]] = {}
        self.measured_s = 0.0  # of rows that are started anew
        self.repeated = "session"  # what a row that was measured before can fail in
        self.shared_cores = shared_cores(options.shared_cores, workload.device.type)

    def _is_available(self, row: Row) -> bool:
        try:
            check_available(row.importable())
        except PrecisionBenchError as exc:
            self.collected.fail(row, exc)
            return False
        return True

    def tell_what_was_interrupted(self) -> None:
        """After a Ctrl-C rows that were finished before say so, and how many sessions there are."""
        if not self.interrupts.requested:
            return
        parts = [part for row in self.finished.values() for part in row]
        for part in parts:
            part.measurement = attrs.evolve(part.measurement, ended_by="interrupted")
        if self.options.sessions > 1:
            done = max(map(len, self.finished.values()), default=0)
            note = f"it was interrupted: {done} of {self.options.sessions} sessions were measured"
            self.collected.note(note)

    def _failed(self, row: Row, error: PrecisionBenchError) -> None:
        """A row that fails in a later session or round keeps what the earlier ones measured."""
        self.rows.remove(row)
        if row.name in self.finished:
            text = f"a later {self.repeated} failed: {error}"
            self.finished[row.name][0].warnings.append(text)
            self.collected.tell_broken(row, text)
        else:
            self.collected.fail(row, error)

    # --- rounds: all rows at once -------------------------------------------------------------

    def session(self, number: int) -> None:
        """Start all workers, measure, and keep what they leave."""
        with contextlib.ExitStack() as stack:
            if number:  # from the second session on there is something to lose
                stack.enter_context(self.interrupts.held())
            while self.rows and not self.interrupts.requested:
                try:
                    self._session(number)
                except _CrowdedError as exc:
                    self._try_alone(exc.row)
                else:
                    return

    def _try_alone(self, row: Row) -> None:
        """Whether a row that found no memory beside the others has it alone decides what to do."""
        with WorkerPool() as pool:
            files = self._files(pool)
            try:
                WorkerBackend(pool.start(files[""], files[row.name]))
            except PrecisionBenchError as exc:
                self._failed(row, exc)
            else:
                raise _DoesNotFitError("the device's memory cannot hold all rows at once")

    def _session(self, number: int) -> None:
        replicas = self._replicas()
        with WorkerPool() as pool:
            self.collected.tell_of_all("starting", total=replicas * len(self.rows))
            files = self._files(pool)
            workers = {
                row.name: [pool.start(files[""], files[row.name]) for _ in range(replicas)]
                for row in self.rows
            }
            pool.wait_until_loaded()
            row_states = self._open(workers, number)
            self._leave_cores(row_states.values())
            self.collected.decided(shared_cores=self.shared_cores)
            for row_state in row_states.values():
                self._share_cores(row_state)
            self._note_other_processes(row_states)
            with self.interrupts.held():
                ended_by = self._rounds(list(row_states.values()))
                self._note_other_processes(row_states)
                self._refuse_nothing(row_states)
                ended = [
                    (row, self._finish(row, row_states[row.name], ended_by))
                    for row in list(self.rows)
                ]
                done = [(row, part) for row, part in ended if part]
                if not number:
                    self._examine(done, Float64Reference(pool.folder))
                finish.close([part for _, part in done])

    def _leave_cores(self, row_states: Iterable[RowState]) -> None:
        """Unless the user wants it, few cores are not for models that compute on several."""
        if self.options.shared_cores is not None or self.shared_cores is None:
            return
        busy = [
            (prepared.opening.cores_busy, row_state.name)
            for row_state in row_states
            for prepared in row_state.replicas
        ]
        most, name = max(busy, default=(0.0, ""))
        if cpu_affinity.uses_several(most):
            self.collected.note(
                f"calls of {name} keep {most:.1f} CPU cores busy, so all workers were left all "
                f"cores; give shared_cores={self.shared_cores} to hold them to few all the same"
            )
            self.shared_cores = None

    def _share_cores(self, row_state: RowState) -> None:
        """Only once all is built: compilers and tuners may use all cores."""
        if self.shared_cores is not None:
            cores = cpu_affinity.chosen(self.shared_cores)
            for prepared in row_state.replicas:
                prepared.worker.run_on(cores)

    def _note_other_processes(self, row_states: Mapping[str, RowState]) -> None:
        """Say who else computes on the device: what they do is in every figure."""
        device = self.workload.device
        if any(row_state.error for row_state in row_states.values()):
            return  # which of our processes the driver still lists is not known then
        ours = [
            prepared.worker.pid
            for row_state in row_states.values()
            for prepared in row_state.replicas
        ]
        if device.type == "cuda" and torch.cuda.is_initialized():
            ours.append(os.getpid())
        with nvml.opened(device) as found:
            listed = nvml.processes(*found) if found else {}
        note = nvml.note_of_other_processes(nvml.other_processes(listed, ours))
        if note:
            self.collected.note(note)

    def _replicas(self) -> int:
        device, parameters = self.workload.device, self.workload.info.parameters
        wanted = self.options.replicas or _REPLICAS.get(device.type, _REPLICAS_ELSEWHERE)
        fit = workers_that_fit(device, 4 * (parameters or 0))
        if fit is None:
            return wanted
        if fit < len(self.rows):
            raise _DoesNotFitError(f"the host's memory holds {fit} workers at once")
        count = max(1, min(wanted, fit // len(self.rows)))
        if count < wanted:
            self.collected.note(
                f"the host's memory holds {fit} workers at once, so each row has {count} and not "
                f"{wanted}; use fewer backends, or free memory"
            )
        return count

    def _files(self, pool: WorkerPool) -> dict[str, Path]:
        files = {"": pool.write("workload.pt", self.workload)}
        for index, row in enumerate(self.rows):
            files[row.name] = pool.write(f"backend-{index}.pt", row.importable())
        return files

    def _open(self, workers: Mapping[str, Sequence[Worker]], session: int) -> dict[str, RowState]:
        """Prepare all replicas, as a rule one at a time: building must not be disturbed."""
        row_states: dict[str, RowState] = {}
        took: dict[str, int] = {}
        if self.options.build_together:
            for worker in itertools.chain.from_iterable(workers.values()):
                worker.begin_to_open()
        for row in list(self.rows):
            self._open_first(row, workers[row.name], row_states, took, session)
        for replica in range(1, max(map(len, workers.values()))):
            for row in self.rows:
                self._open_further(row, workers[row.name][replica], row_states[row.name], took)
        if self.options.build_together:
            self._look_alone(row_states)
        return row_states

    def _look_alone(self, row_states: dict[str, RowState]) -> None:
        """One after another, once nothing else is being built."""
        for row in list(self.rows):
            row_state = row_states[row.name]
            for prepared in list(row_state.replicas):
                try:
                    prepared.look_alone()
                except PrecisionBenchError as exc:
                    prepared.worker.kill()
                    self._leave_out(row, row_state, prepared, exc)
            if not row_state.replicas:
                del row_states[row.name]

    def _leave_out(
        self, row: Row, row_state: RowState, prepared: WorkerBackend, error: PrecisionBenchError
    ) -> None:
        """A replica that fails takes the row with it only where it is the last one."""
        row_state.replicas.remove(prepared)
        if row_state.replicas:
            self._warn_of_few(row_state, f"another one failed ({error.reason})")
        elif isinstance(error, OutOfMemoryError) and len(self.rows) > 1:
            raise _CrowdedError(row) from error
        else:
            self._failed(row, error)

    def _open_first(
        self,
        row: Row,
        workers: Sequence[Worker],
        row_states: dict[str, RowState],
        took: dict[str, int],
        session: int,
    ) -> None:
        self.collected.tell(row, "preparing")
        free = free_device_bytes(self.workload.device)
        try:
            prepared = WorkerBackend(workers[0], self._steps_of(row))
        except PrecisionBenchError as exc:
            for worker in workers:
                worker.kill()
            if isinstance(exc, OutOfMemoryError) and len(self.rows) > 1:
                raise _CrowdedError(row) from exc
            self._failed(row, exc)
        else:
            left = free_device_bytes(self.workload.device)
            took[row.name] = max(0, (free or 0) - (left or 0))
            row_states[row.name] = RowState(row.name, [prepared], session)

    def _open_further(
        self, row: Row, worker: Worker, row_state: RowState, took: Mapping[str, int]
    ) -> None:
        free = free_device_bytes(self.workload.device)
        build_s = row_state.replicas[0].opening.build_s
        why = ""
        if worker.is_opening:
            why = self._add(row, worker, row_state)
        elif build_s > _LONG_BUILD_S:
            why = f"building it takes {build_s:.0f} s"
        elif free is not None and free < _HEADROOM * took[row.name]:
            why = "the device's memory is full"
        else:
            why = self._add(row, worker, row_state)
        if why:
            worker.kill()
            self._warn_of_few(row_state, why)

    def _warn_of_few(self, row_state: RowState, why: str) -> None:
        known = "; what processes are known to differ on this kind of device is added"
        row_state.warnings.append(
            f"{len(row_state.replicas)} replica(s) only, because {why}"
            f"{known if self.noise_floor else ''}"
        )

    def _add(self, row: Row, worker: Worker, row_state: RowState) -> str:
        """Take a further worker into a row; why it could not be."""
        try:
            row_state.replicas.append(
                WorkerBackend(worker, self._steps_of(row, len(row_state.replicas)))
            )
        except PrecisionBenchError as exc:
            return f"the next one failed ({exc.reason})"
        return ""

    def _rounds(self, row_states: Sequence[RowState]) -> str:
        if not row_states:
            return "budget"
        with watching(self.workload.device) as watch:
            rules = Schedule(
                self.budget_s / self.options.sessions,
                self.collected.reference,
                self.rng,
                floor=self.noise_floor,
                watch=watch,
                stopped=lambda: self.interrupts.requested,
                on_warm_up=lambda: self.collected.tell_of_all("warming_up"),
                on_round=lambda status: self._tell(status, row_states),
                on_block=self.collected.write_down,
            )
            return run_rounds(row_states, rules)

    def _tell(self, status: RoundStatus, row_states: Sequence[RowState] = ()) -> None:
        if not self.collected.is_followed:
            return
        broken = {
            row_state.name: str(row_state.error) for row_state in row_states if row_state.error
        }
        for row in self.rows:
            if row.name in broken:
                self.collected.tell_broken(row, broken[row.name])
        speedups = self.live_speedups.update(row_states)
        self.collected.tell_of_all(
            "measuring", status.round, MAX_ROUNDS, status.remaining_s, speedups
        )

    def _steps_of(self, row: Row, replica: int = 0) -> Callable[[str], object]:
        """Tells what a worker does while it prepares a row."""
        which = f"process {replica + 1}, " if replica else ""
        return lambda step: self.collected.tell(row, "preparing", step=f"{which}{step}")

    def _refuse_nothing(self, row_states: Mapping[str, RowState]) -> None:
        """Where the user stopped before a first round was complete, there is nothing to return."""
        nothing = not any(row_state.complete_rounds for row_state in row_states.values())
        if self.interrupts.requested and nothing and not self.finished:
            raise KeyboardInterrupt

    def _finish(self, row: Row, row_state: RowState, ended_by: str) -> FinishedRow | None:
        """Keep a row's rounds, and have the last looks at its first worker."""
        if not row_state.complete_rounds:
            if row_state.error or row.name not in self.finished:
                self._failed(row, row_state.error or _interrupted())
            return None
        if row_state.error:
            self.rows.remove(row)
            row_state.warnings.append(
                f"it failed after {row_state.complete_rounds} rounds, which are kept: "
                f"{row_state.error}"
            )
        done = FinishedRow.of(row_state, ended_by)
        parts = self.finished.setdefault(row.name, [])
        parts.append(done)
        if len(parts) == 1 and not row_state.error:
            self.collected.tell(row, "finishing")
            done.look(not self.interrupts.requested, self.options.passes)
        return done

    def _examine(self, done: Sequence[tuple[Row, FinishedRow]], truth: Float64Reference) -> None:
        """See what runs in each row's calls, one row at a time, once all are ready for it."""
        if not self.options.evidence or self.interrupts.requested:
            return
        whole = [(row, part) for row, part in done if part.measurement.ended_by != "failed"]
        for row, part in whole:
            self.collected.tell(row, "examining", step="starting the profiler")
            part.examined.worker.run_on(cpu_affinity.available())
            part.examined.get_ready_to_profile()
        truth.ask(part.examined for _, part in whole)
        for row, part in whole:
            if self.interrupts.requested:
                return
            self.collected.tell(row, "examining")
            part.examine(truth)

    # --- restarts: where not all rows fit -----------------------------------------------------

    def restarts(self) -> None:
        """Start every row anew in each round, in a random order, for as long as there is time."""
        self.finished.clear()
        self.repeated = "round"
        if self.options.shared_cores is None:  # the rows never meet, to be asked what they use
            self.shared_cores = None
        self.collected.decided(shared_cores=self.shared_cores)
        row_states: dict[str, RowState] = {}
        end_s = time.monotonic() + _RESTARTS_LIMIT * self.budget_s
        with WorkerPool() as pool, self.interrupts.held():
            files, truth = self._files(pool), Float64Reference(pool.folder)
            for number in range(MAX_ROUNDS):
                over = self.measured_s >= self.budget_s or time.monotonic() >= end_s
                if number and (over or self.interrupts.requested):
                    break
                for position, row in enumerate(self.rng.sample(self.rows, len(self.rows))):
                    self._restart(pool, files, row, row_states, (number, position), truth)
                left_s = max(0.0, end_s - time.monotonic())
                self._tell(RoundStatus(number + 1, left_s))
        ended_by = "interrupted" if self.interrupts.requested else "budget"
        for name, (done,) in self.finished.items():
            done.measurement, done.replicas = (
                row_states[name].measurement(ended_by),
                row_states[name].replicas,
            )

    def _restart(
        self,
        pool: WorkerPool,
        files: dict[str, Path],
        row: Row,
        row_states: dict[str, RowState],
        place: tuple[int, int],
        truth: Float64Reference,
    ) -> None:
        if not place[0]:
            self.collected.tell(row, "preparing")
        worker = pool.start(files[""], files[row.name])
        row_state = row_states.setdefault(row.name, RowState(row.name, []))
        try:
            prepared = WorkerBackend(worker)
            self._share_cores(RowState(row.name, [prepared]))
            begun_s = time.monotonic()
            single_rounds(row_state, prepared, place)
            self.measured_s += time.monotonic() - begun_s
            self.collected.write_down(row_state)
            if row.name not in self.finished:
                done = FinishedRow.of(row_state, "budget")
                done.look(everything=True, passes=self.options.passes)
                self._examine([(row, done)], truth)
                self.finished[row.name] = [done]
                finish.close([attrs.evolve(done, replicas=[prepared])])
        except PrecisionBenchError as exc:
            self._failed(row, exc)
        finally:
            worker.kill()


def _interrupted() -> PrecisionBenchError:
    return MeasurementError("it was interrupted before its first round", "measure again")
