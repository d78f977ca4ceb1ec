"""All rows at once, each replica in a worker process of its own, in interleaved rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from precisionbench.collected import Collected
from precisionbench.errors import OutOfMemoryError, PrecisionBenchError
from precisionbench.interrupts import Interrupts
from precisionbench.launchers.process import Crew, RemoteSeat, Worker
from precisionbench.launchers.seat import Closing
from precisionbench.launchers.session import check_available
from precisionbench.memory import free_device_bytes, workers_that_fit
from precisionbench.plan import Row
from precisionbench.results import Measurement, Passes
from precisionbench.rounds import MAX_ROUNDS, Lane, Rules, Status, run_rounds, single_rounds
from precisionbench.speedups import FLOOR_ROUNDS
from precisionbench.workload import Workload

# Two processes of the same code differ on a GPU; three tell by how much
# (docs/between-processes.md).
_REPLICAS = {"cuda": 3}
_REPLICAS_ELSEWHERE = 2
# A backend that takes longer than this to build gets one replica only.
_LONG_BUILD_S = 60.0
# A further replica must find this many times the device memory that the first one took.
_HEADROOM = 1.2


@attrs.frozen
class Options:
    """How the rows are to be measured.

    Attributes:
        budget_s: seconds for warm-up and rounds, of all rows together, in each session.
        replicas: fresh processes of each row; None chooses.
        sessions: how often the whole is repeated with new processes.
        seed: of the orders.
        floor: spread between processes that is known of this device, as a log.
    """

    budget_s: float
    replicas: int | None
    sessions: int
    seed: int
    floor: float


class _DoesNotFitError(Exception):
    """The device or the host cannot hold one worker of every row."""


def measure(workload: Workload, collected: Collected, options: Options) -> str:
    """Measure every row in worker processes.

    Args:
        workload: the model and inputs.
        collected: holds the rows, and takes what comes of each.
        options: how.

    Returns:
        The schedule: `rounds`, or `restarts` where not all rows fit at once.

    Raises:
        WorkloadError: the model cannot be sent to a worker.
    """
    run = _Run(workload, collected, options)
    try:
        for session in range(options.sessions):
            run.session(session)
    except _DoesNotFitError as exc:
        collected.run_notes.append(
            f"{exc}; each row was started anew in every round, so slow drift is cancelled in part "
            "only. Use a smaller batch, or fewer backends, to measure them side by side"
        )
        run.restarts()
        run.keep()
        return "restarts"
    run.keep()
    return "rounds"


class _Run:
    """One run: lanes of every session, and what their workers left behind."""

    def __init__(self, workload: Workload, collected: Collected, options: Options) -> None:
        self.workload, self.collected, self.options = workload, collected, options
        self.rng = random.Random(options.seed)
        self.interrupts = Interrupts()
        self.rows = [row for row in collected.rows if self._is_available(row)]
        self.finished: dict[str, list[_Finished]] = {}

    def _is_available(self, row: Row) -> bool:
        try:
            check_available(row.importable())
        except PrecisionBenchError as exc:
            self.collected.fail(row, exc)
            return False
        return True

    # --- rounds: all rows at once -------------------------------------------------------------

    def session(self, number: int) -> None:
        """Start all workers, measure, and keep what they leave."""
        if not self.rows or self.interrupts.requested:
            return
        replicas = self._replicas()
        with Crew() as crew:
            files = self._files(crew)
            workers = [[crew.start() for _ in self.rows] for _ in range(replicas)]
            lanes = self._open(workers, files, number)
            if not lanes:
                return
            ended_by = self._rounds(list(lanes.values()))
            for row in list(self.rows):
                if row.name in lanes:
                    self._finish(row, lanes[row.name], ended_by)

    def _replicas(self) -> int:
        device, parameters = self.workload.device, self.workload.info.parameters
        wanted = self.options.replicas or _REPLICAS.get(device.type, _REPLICAS_ELSEWHERE)
        fit = workers_that_fit(device, 4 * (parameters or 0))
        if fit is None:
            return wanted
        if fit < len(self.rows):
            raise _DoesNotFitError(f"the host's memory holds {fit} workers at once")
        return max(1, min(wanted, fit // len(self.rows)))

    def _files(self, crew: Crew) -> dict[str, Path]:
        files = {"": crew.write("workload.pt", self.workload)}
        for index, row in enumerate(self.rows):
            files[row.name] = crew.write(f"backend-{index}.pt", row.importable())
        return files

    def _open(
        self, workers: Sequence[Sequence[Worker]], files: dict[str, Path], session: int
    ) -> dict[str, Lane]:
        """Prepare all replicas, one at a time: building and tuning must not be disturbed."""
        lanes: dict[str, Lane] = {}
        took: dict[str, int] = {}
        for replica, of_rows in enumerate(workers):
            for row, worker in zip(list(self.rows), of_rows, strict=False):
                if replica == 0:
                    self._open_first(row, worker, files, lanes, took, session)
                elif row.name in lanes:
                    self._open_further(row, worker, files, lanes[row.name], took)
            self.rows = [row for row in self.rows if row.name in lanes]
        return lanes

    def _open_first(
        self,
        row: Row,
        worker: Worker,
        files: dict[str, Path],
        lanes: dict[str, Lane],
        took: dict[str, int],
        session: int,
    ) -> None:
        self.collected.tell(row, "preparing")
        free = free_device_bytes(self.workload.device)
        try:
            seat = RemoteSeat(worker, files[""], files[row.name])
        except OutOfMemoryError as exc:
            worker.kill()
            if lanes:
                raise _DoesNotFitError("the device cannot hold all rows at once") from exc
            self.collected.fail(row, exc)
        except PrecisionBenchError as exc:
            worker.kill()
            self._failed(row, exc)
        else:
            left = free_device_bytes(self.workload.device)
            took[row.name] = max(0, (free or 0) - (left or 0))
            lanes[row.name] = Lane(row.name, [seat], session)

    def _failed(self, row: Row, error: PrecisionBenchError) -> None:
        """A row that fails in a later session keeps what the earlier ones measured."""
        if row.name in self.finished:
            self.finished[row.name][0].warnings.append(f"a later session failed: {error}")
        else:
            self.collected.fail(row, error)

    def _open_further(
        self, row: Row, worker: Worker, files: dict[str, Path], lane: Lane, took: dict[str, int]
    ) -> None:
        free = free_device_bytes(self.workload.device)
        build_s = lane.seats[0].opening.build_s
        why = ""
        if build_s > _LONG_BUILD_S:
            why = f"building it takes {build_s:.0f} s"
        elif free is not None and free < _HEADROOM * took[row.name]:
            why = "the device's memory is full"
        else:
            try:
                lane.seats.append(RemoteSeat(worker, files[""], files[row.name]))
            except PrecisionBenchError as exc:
                why = f"the next one failed ({exc.reason})"
        if why:
            worker.kill()
            lane.warnings.append(
                f"{len(lane.seats)} replica(s) only, because {why}; what processes are known to "
                "differ on this kind of device is added to its interval"
            )

    def _rounds(self, lanes: Sequence[Lane]) -> str:
        rules = Rules(
            self.options.budget_s,
            self.collected.reference,
            self.rng,
            floor=self.options.floor,
            stopped=lambda: self.interrupts.requested,
            on_round=self._tell,
        )
        with self.interrupts.held():
            return run_rounds(lanes, rules)

    def _tell(self, status: Status) -> None:
        self.collected.tell_of_all(status.round, MAX_ROUNDS, status.remaining_s)

    # --- what is left behind ------------------------------------------------------------------

    def _finish(self, row: Row, lane: Lane, ended_by: str) -> None:
        """Passes, last looks and farewells of one row's workers."""
        if lane.error and lane.complete_rounds < FLOOR_ROUNDS:
            self._failed(row, lane.error)
            self.rows.remove(row)
            return
        if lane.error:
            self.rows.remove(row)
            lane.warnings.append(
                f"it failed after {lane.complete_rounds} rounds, which are kept: {lane.error}"
            )
        first = not self.finished.get(row.name)
        done = _Finished(lane.measurement(ended_by), lane.seats, lane.warnings)
        seat = lane.seats[0]
        if first:
            guarded(done, lambda: done.take_output(seat))
        if first and not self.interrupts.requested and not lane.error:
            guarded(done, lambda: done.take_passes(seat, lane.call_s))
            guarded(done, seat.check_steady)
        for each in lane.seats:
            guarded(done, each.close)
        self.finished.setdefault(row.name, []).append(done)

    def keep(self) -> None:
        """Hand every row that was measured to the collection."""
        for row in self.collected.rows:
            if row.name not in self.finished:
                continue
            parts = self.finished[row.name]
            seat, first = parts[0].seats[0], parts[0]
            closing = seat.closing()
            warnings = [text for part in parts for text in part.warnings]
            self.collected.keep(
                row,
                seat.opening,
                _merged([part.measurement for part in parts]),
                Closing((*closing.warnings, *warnings), closing.log),
                first.passes,
                first.output,
            )

    # --- restarts: where not all rows fit -----------------------------------------------------

    def restarts(self) -> None:
        """Start every row anew in each round, in a random order, for as long as there is time."""
        self.finished.clear()
        lanes: dict[str, Lane] = {}
        end_s = time.monotonic() + self.options.budget_s
        with Crew() as crew, self.interrupts.held():
            files = self._files(crew)
            for number in range(MAX_ROUNDS):
                if number and (time.monotonic() >= end_s or self.interrupts.requested):
                    break
                for position, row in enumerate(self.rng.sample(self.rows, len(self.rows))):
                    self._restart(crew, files, row, lanes, (number, position))
                self._tell(Status(number + 1, max(0.0, end_s - time.monotonic())))
        ended_by = "interrupted" if self.interrupts.requested else "budget"
        for row in self.collected.rows:
            if row.name in lanes:
                lane, done = lanes[row.name], self.finished[row.name][0]
                self.finished[row.name] = [
                    attrs.evolve(done, measurement=lane.measurement(ended_by), seats=lane.seats)
                ]

    def _restart(
        self,
        crew: Crew,
        files: dict[str, Path],
        row: Row,
        lanes: dict[str, Lane],
        place: tuple[int, int],
    ) -> None:
        if not place[0]:
            self.collected.tell(row, "preparing")
        worker = crew.start()
        try:
            seat = RemoteSeat(worker, files[""], files[row.name])
            lane = lanes.get(row.name) or Lane(row.name, [])
            lane.seats.append(seat)
            single_rounds(lane, place)
            if row.name not in self.finished:
                done = _Finished(lane.measurement("budget"), lane.seats, lane.warnings)
                guarded(done, lambda: done.take_output(seat))
                guarded(done, lambda: done.take_passes(seat, lane.call_s))
                self.finished[row.name] = [done]
            guarded(self.finished[row.name][0], seat.close)
            lanes[row.name] = lane
        except PrecisionBenchError as exc:
            self._failed(row, exc)
            self.rows.remove(row)
        finally:
            worker.kill()


@attrs.define
class _Finished:
    """What one session leaves of a row."""

    measurement: Measurement
    seats: Sequence[RemoteSeat]
    warnings: list[str]
    passes: Passes = attrs.field(factory=Passes)
    output: dict[str, object] = attrs.field(factory=dict)

    def take_output(self, seat: RemoteSeat) -> None:
        """Fetch the first output."""
        self.output = dict(seat.output)

    def take_passes(self, seat: RemoteSeat, call_s: float) -> None:
        """Run the passes beside the latency."""
        self.passes = seat.passes(call_s, capture=True)


def guarded(done: _Finished, action: Callable[[], object]) -> None:
    """What fails after a row was measured is said, and takes nothing away."""
    try:
        action()
    except PrecisionBenchError as exc:
        done.warnings.append(f"after it had been measured: {exc}")


def _merged(parts: Sequence[Measurement]) -> Measurement:
    """The measurements of all sessions as one."""
    return attrs.evolve(
        parts[0],
        preparations=tuple(p for part in parts for p in part.preparations),
        blocks=tuple(block for part in parts for block in part.blocks),
        ended_by=parts[-1].ended_by,
    )
