"""All rows at once, each replica in a worker process of its own, in interleaved rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs

from precisionbench.errors import FOREIGN_ERRORS, MeasurementError, PrecisionBenchError
from precisionbench.measure import finish, restarts
from precisionbench.measure.collector import Collector
from precisionbench.measure.conditions import (
    leave_all_cores_to_busy_calls,
    monitor_of,
    share_cores,
)
from precisionbench.measure.finish import FinishedRow, Float64Reference
from precisionbench.measure.guard import GuardedTelemetry, explained
from precisionbench.measure.monitor import Monitor
from precisionbench.measure.options import Options, Outcome
from precisionbench.measure.replicas import (
    CrowdedError,
    DoesNotFitError,
    WorkerStarter,
    device_holds_copies,
    open_replicas,
    replica_count,
)
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run, System
from precisionbench.measure.schedule import RoundStatus, RowState, Schedule
from precisionbench.measure.time_budget import PROFILE
from precisionbench.measure.worker.process import Worker
from precisionbench.model.workload import Workload
from precisionbench.statistics import preload


def measure(
    workloads: Mapping[str, Workload],
    collector: Collector,
    options: Options,
    system: System | None = None,
    after_rows: Callable[[Run, WorkerStarter], object] = lambda _, __: None,
) -> Outcome:
    """Measure every row in worker processes.

    Args:
        workloads: the model and inputs by the name of the model, empty where there is only one.
        collector: holds the rows, and takes their results.
        options: how to measure.
        system: what the run uses of the system; None is the real one.
        after_rows: called once all rows are finished, while their workers still run, with the run
            and what starts further workers; not where rows were restarted or the user stopped.

    Returns:
        How the rows were measured in the end.

    Raises:
        WorkloadError: a model cannot be sent to a worker.
        KeyboardInterrupt: the user stopped it before anything was measured, or a second time.
    """
    run = Run(workloads, collector, options, system or System(), after_rows)
    run.leave_out_unavailable()
    try:
        _measure_sessions(run)
    except KeyboardInterrupt:
        if not run.finished or run.stop_requested():
            raise
        run.interrupts.request()
    except FOREIGN_ERRORS as exc:
        if not run.finished:
            raise
        collector.add_note(f"the run ended early; finished rounds are kept: {explained(exc)}")
    with run.interrupts.held():
        if run.stop_requested():
            _note_interruption(run)
        for row in collector.rows:
            if row.name in run.finished:
                _add_result(run, row)
    return Outcome("restarts" if run.repeats == "round" else "rounds", run.shared_cores)


def _add_result(run: Run, row: Row) -> None:
    """Add a finished row to the results."""
    try:
        finish.add_to(run.collector, row, run.finished[row.name])
    except FOREIGN_ERRORS as exc:
        if row.name not in run.collector.results:
            run.collector.add_failure(row, explained(exc))


def _measure_sessions(run: Run) -> None:
    """Measure all sessions side by side, or with restarts where not all rows fit."""
    try:
        for number in range(run.options.sessions):
            measure_session(run, number)
    except DoesNotFitError as exc:
        if run.finished:
            run.collector.add_note(f"a later session was not measured: {exc}")
            return
        run.collector.add_note(
            f"{exc}; each row was restarted in every round, which cancels slow drift only partly; "
            "use a smaller batch or fewer backends to run all rows at the same time"
        )
        run.collector.record_restarts(restarts.TIME_LIMIT * run.budget_s)
        restarts.measure(run)


def measure_session(run: Run, number: int) -> None:
    """Measure one session; again without a row that does not fit even alone.

    Args:
        run: takes what is finished.
        number: of the session, from 0.

    Raises:
        DoesNotFitError: not all rows fit at once.
    """
    while run.rows and not run.stop_requested():
        try:
            _measure_in_workers(run, number)
        except CrowdedError as exc:
            _try_alone(run, exc.row)
        else:
            return


def _started(
    rows: Sequence[Row], starter: WorkerStarter, with_model: bool, count: int
) -> dict[str, list[Worker]]:
    """New workers of each row, by its name."""
    return {row.name: [starter.start(row, with_model) for _ in range(count)] for row in rows}


def _try_alone(run: Run, row: Row) -> None:
    """Start a row alone that ran out of memory: it fails, or not all rows fit at once."""
    with run.system.worker_pool() as pool:
        starter = WorkerStarter.write(pool, run)
        try:
            run.system.open_backend(starter.start(row))
        except FOREIGN_ERRORS as exc:
            run.fail(row, explained(exc))
        else:
            raise DoesNotFitError("all rows together do not fit in the device's memory")


def _measure_in_workers(run: Run, number: int) -> None:
    """Start all workers, prepare their backends, run the rounds, and finish the rows."""
    replicas = replica_count(run)
    with contextlib.ExitStack() as until_they_end, run.system.worker_pool() as pool:
        run.collector.report_run("starting", total=replicas * len(run.rows))
        starter = WorkerStarter.write(pool, run)
        copied = device_holds_copies(run, replicas * len(run.rows))
        together = run.options.build_together
        workers = _started(run.rows, starter, copied, 1 if together else replicas)
        preload()  # while the workers import torch, and not between two rounds
        pool.wait_until_loaded()
        if together:  # these start while the first are built, and not beside them on the device
            for name, further in _started(run.rows, starter, copied, replicas - 1).items():
                workers[name] += further
        row_states = open_replicas(run, workers, number)
        leave_all_cores_to_busy_calls(run, row_states.values())
        run.collector.record_conditions(shared_cores=run.shared_cores)
        for row_state in row_states.values():
            share_cores(run, row_state.replicas, row_state.warnings.append)
        with run.interrupts.held():
            ended_by = measure_rounds(run, list(row_states.values()))
            run.interrupts.also_call(pool.stop)
            _raise_if_nothing_to_keep(run, row_states)
            profiled = not number and _is_to_be_profiled(run, list(row_states.values()))
            if profiled:
                finish.begin_profilers(row_states.values())
            done = _finish_rows(run, row_states, ended_by)
            if profiled and not run.stop_requested():
                with run.guarded("profiling"):
                    _profile(run, done, pool.folder)
            _note_what_was_left_out(run)
        if number == run.options.sessions - 1 and not run.stop_requested():
            with run.guarded("running the experiments"):
                run.after_rows(run, starter)
        until_they_end.enter_context(run.interrupts.held())
        finish.close([part for _, part in done])


def measure_rounds(run: Run, row_states: Sequence[RowState]) -> str:
    """Run the rounds of one session.

    An exception of any kind ends them; rounds that were finished are kept.

    Args:
        run: says how, and takes progress and blocks.
        row_states: of the rows that are ready.

    Returns:
        What ended the rounds.
    """
    if not row_states:
        return "budget"
    try:
        return _measure_rounds(run, row_states)
    except FOREIGN_ERRORS as exc:
        error = explained(exc)
    for row_state in row_states:
        if not row_state.complete_rounds and row_state.error is None:
            row_state.error = error
    run.collector.add_note(f"the rounds ended early: {error}")
    return "failed"


def _measure_rounds(run: Run, row_states: Sequence[RowState]) -> str:
    collector, monitor = run.collector, monitor_of(run, row_states)
    budget = run.begin_session(row_states)
    opened = partial(run.system.open_telemetry, run.device)
    with GuardedTelemetry(opened, collector.add_note) as telemetry:
        schedule = Schedule(
            budget.rounds_s(row_states),
            collector.reference,
            run.rng,
            noise_floor=run.noise_floor,
            now=run.clock,
            **run.options.rounds,
            ranked=run.options.ranked,
            references=collector.references,
            telemetry=telemetry,
            stop_requested=run.stop_requested,
            on_warm_up=lambda: collector.report_run("warming_up"),
            on_first_round=monitor.start,
            on_round=lambda status: _after_round(run, monitor, status, row_states),
            on_block=collector.record_block,
        )
        ended_by = run_rounds(row_states, schedule)
        monitor.finish()
    return ended_by


def _after_round(
    run: Run, monitor: Monitor, status: RoundStatus, row_states: Sequence[RowState]
) -> None:
    monitor.after_round(status.round - 1)
    run.report_round(status, row_states)


def _raise_if_nothing_to_keep(run: Run, row_states: Mapping[str, RowState]) -> None:
    """Raise the user's interruption where it came before a first round was complete."""
    has_round = any(row_state.complete_rounds for row_state in row_states.values())
    if run.stop_requested() and not has_round and not run.finished:
        raise KeyboardInterrupt


def _finish_rows(
    run: Run, row_states: Mapping[str, RowState], ended_by: str
) -> list[tuple[Row, FinishedRow]]:
    """The rows that have a complete round, with their passes; the others have failed."""
    done = []
    for row in list(run.rows):
        row_state = row_states[row.name]
        try:
            if row_state.complete_rounds:
                done.append((row, _finish_row(run, row, row_states, ended_by)))
            elif row_state.error or row.name not in run.finished:
                run.fail(row, row_state.error or interrupted())
        except FOREIGN_ERRORS as exc:
            run.fail(row, explained(exc))
    return done


def _finish_row(
    run: Run, row: Row, row_states: Mapping[str, RowState], ended_by: str
) -> FinishedRow:
    """Keep a row's rounds; in its first session also measure it besides its latency."""
    row_state = row_states[row.name]
    done = FinishedRow.of(row_state, ended_by, run.clock)
    is_first = row.name not in run.finished
    run.finished.setdefault(row.name, []).append(done)
    if row_state.error:
        run.rows.remove(row)
    elif is_first:
        try:
            _probe(run, row, done, row_states)
        except FOREIGN_ERRORS as exc:
            done.warn(exc)
    return done


def _probe(run: Run, row: Row, done: FinishedRow, row_states: Mapping[str, RowState]) -> None:
    """Measure a row besides its latency, as far as there is time for it."""
    run.collector.report_row(row, "finishing")
    done.run_probes(
        output_only=run.stop_requested(),
        passes=run.options.pass_names,
        leave_out=run.leave_out_of(row, row_states),
        steady=not (run.time and run.time.is_over),
    )


def _is_to_be_profiled(run: Run, row_states: Sequence[RowState]) -> bool:
    """Whether the rows are to be profiled, and there is time for it."""
    if not run.options.evidence or run.stop_requested():
        return False
    return run.time is None or PROFILE not in run.time.leave_out(row_states, row_states)


def _profile(run: Run, done: Sequence[tuple[Row, FinishedRow]], folder: Path) -> None:
    """Profile the rows, as long as the budget has time for it."""
    budget = run.time
    if budget is None or PROFILE not in budget.left_out:
        references = Float64Reference.of_models(folder, run.workloads, run.clock)
        finish.profile_rows(done, references, run.collector, lambda: _must_end(run, done))


def _must_end(run: Run, done: Sequence[tuple[Row, FinishedRow]]) -> bool:
    """Whether no further row is to be profiled: the user wants it, or the budget is used up."""
    if run.time is None or not run.time.is_over:
        return run.stop_requested()
    run.time.leave_out_profile([part.call_s for _, part in done if part.evidence is None])
    return True


def _note_what_was_left_out(run: Run) -> None:
    if run.time and not run.stop_requested() and (note := run.time.note()):
        run.collector.add_note(note)


def interrupted() -> PrecisionBenchError:
    """The error of a row that the user's interruption has left without a round."""
    return MeasurementError("interrupted before its first round", "measure again")


def _note_interruption(run: Run) -> None:
    """Mark all measurements as interrupted, and note how many sessions there are."""
    for parts in run.finished.values():
        for part in parts:
            part.measurement = attrs.evolve(part.measurement, ended_by="interrupted")
    if run.options.sessions > 1:
        done = max(map(len, run.finished.values()), default=0)
        run.collector.add_note(
            f"interrupted: {done} of {run.options.sessions} sessions were measured"
        )
