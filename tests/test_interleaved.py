"""How many replicas rows get, and what happens to rows and replicas that fail.

Worker processes are simulated here; real ones fail in test_faults.py.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs
import pytest
import torch
from torch import nn

from precisionbench._internal.interrupts import Interrupts
from precisionbench.backends import Backend
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.errors import OutOfMemoryError, PreparationError, WorkerError
from precisionbench.measure import restarts
from precisionbench.measure.collector import Collector
from precisionbench.measure.conditions import leave_all_cores_to_busy_calls, monitor_of
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.interleaved import measure_rounds
from precisionbench.measure.options import Options
from precisionbench.measure.replicas import (
    CrowdedError,
    DoesNotFitError,
    open_replicas,
    replica_count,
)
from precisionbench.measure.rows import plan
from precisionbench.measure.run import Run, System
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.first_call_limit import FirstCallLimit
from precisionbench.measure.worker.protocol import Closing, KnownCalls
from precisionbench.model.workload import resolve
from precisionbench.probes.run_all import NO_TIME, NOT_WANTED
from precisionbench.results import Block, Passes
from precisionbench.results.passes import PASSES
from precisionbench.system import cpu_affinity, memory
from simulated_device import CALL_S, SimulatedBackend, SimulatedDevice

GIB = 1 << 30


class Worker:
    """A simulated worker process, whose backend opens or fails as it is told to."""

    is_opening = False
    pid = 7
    first_call_limit: FirstCallLimit | None = None

    def __init__(
        self,
        error: Exception | None = None,
        error_alone: Exception | None = None,
        build_s: float = 0.5,
    ) -> None:
        self.error, self.error_alone, self.build_s = error, error_alone, build_s
        self.killed = False

    def begin_open(self, known: KnownCalls | None = None) -> None:
        self.is_opening, self.known = True, known

    def is_ready(self, within_s: float) -> bool:
        return True

    def kill(self) -> None:
        self.killed = True


class Prepared:
    """The prepared backend of a simulated worker."""

    output = None

    def __init__(self, worker: Worker, *_: object) -> None:
        if worker.error:
            raise worker.error
        self.worker, self.passes_taken = worker, 0
        self.simulated = SimulatedBackend(SimulatedDevice(random.Random(0)), CALL_S)
        self.opening = attrs.evolve(self.simulated.opening, build_s=worker.build_s)

    def recalibrate(self) -> None:
        if self.worker.error_alone:
            raise self.worker.error_alone

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        return self.simulated.block(samples, calls_per_sample, settle_calls)

    def passes(self, call_s: float, capture: bool, leave_out: Mapping[str, str]) -> Passes:
        self.passes_taken += 1
        return Passes()

    def check_steady(self) -> None:
        pass

    def begin_close(self) -> None:
        pass

    def close(self) -> None:
        pass

    def closing(self) -> Closing:
        return Closing()


def make_run(
    options: Options | None = None,
    backends: Sequence[str | Backend] = ("half",),
    **system: object,
) -> Run:
    """A run of rows, two if not said otherwise, whose workers are simulated."""
    rows, reference = plan(backends, "eager")
    workload = resolve(nn.Linear(2, 2), torch.rand(1, 2), device="cpu", batch_size=None, seed=0)
    return Run(
        {"": workload},
        Collector(rows, reference, 1),
        options or Options(budget_s=1.0),
        System(**{"open_backend": Prepared, **system}),
    )


@pytest.fixture
def run() -> Run:
    return make_run()


@pytest.mark.parametrize(("fit", "replicas"), [(None, 2), (2, 1), (3, 1), (4, 2), (100, 2)])
def test_there_are_as_many_replicas_as_the_hosts_memory_holds(fit, replicas):
    assert replica_count(make_run(workers_that_fit=lambda *_: fit)) == replicas


def test_a_host_that_cannot_hold_one_worker_of_each_row_is_refused():
    with pytest.raises(DoesNotFitError, match="holds only 1 workers at once"):
        replica_count(make_run(workers_that_fit=lambda *_: 1))


def opened(run: Run, *further: Worker, first: Worker | None = None):
    """Both rows opened, the first of them with further workers; its state."""
    workers = {
        "eager": [first or Worker(), *further],
        "half": [Worker(), *[Worker() for _ in further]],
    }
    return open_replicas(run, workers, 0)["eager"]


def test_a_further_replica_that_fails_leaves_the_row_with_fewer(run):
    broken = Worker(error=PreparationError("no engine", "try again"))
    row_state = opened(run, broken)
    assert broken.killed
    assert "only one process, because another one failed (no engine)" in row_state.warnings[0]


def test_a_backend_that_takes_long_to_build_has_one_replica(run):
    row_state = opened(run, Worker(), first=Worker(build_s=61.0))
    assert "because building takes 61 s" in row_state.warnings[0]


def test_a_replica_that_the_devices_memory_cannot_hold_is_not_opened():
    free = iter([10 * GIB, 6 * GIB, 6 * GIB, 4 * GIB, 4 * GIB, 4 * GIB, 9 * GIB])
    crowded = Worker()
    row_state = opened(make_run(free_device_bytes=lambda _: next(free)), crowded)
    assert crowded.killed
    assert "because the device's memory is full" in row_state.warnings[0]


def further_of(backends: Sequence[Backend], device: str = "cuda", **system: object) -> list[bool]:
    """For each row whether its further replica begins while others of the rest do."""
    run = make_run(backends=backends, **{"free_device_bytes": lambda _: None, **system})
    run.workloads = {"": attrs.evolve(run.any_workload, device=torch.device(device))}
    further = {row.name: Worker() for row in run.rows}
    row_states = open_replicas(run, {name: [Worker(), w] for name, w in further.items()}, 0)
    assert [len(state.replicas) for state in row_states.values()] == [2] * len(further)
    for worker in further.values():
        if worker.is_opening:  # what its first replica has shown is not measured again
            assert worker.known == KnownCalls(CALL_S, 0.0, ())
    return [worker.is_opening for worker in further.values()]


@attrs.frozen
class Tuned(Eager):
    name = "tuned"
    tunes_by_timing = True


def test_further_replicas_are_prepared_side_by_side_unless_they_tune_by_timing():
    assert further_of([Eager(), Tuned(), Half(), Half(cudnn_benchmark=True)]) == [
        True,
        False,
        True,
        False,
    ]


def test_further_replicas_are_prepared_one_at_a_time_on_a_cpu_whose_cores_they_all_use():
    assert further_of([Eager(), Half()], "cpu") == [False, False]


def test_further_replicas_are_prepared_one_at_a_time_where_memory_may_be_short():
    free = iter([10, 8, 8, 6, 4, 4, 4])  # each takes 2, all further ones together 4
    assert further_of([Eager(), Half()], free_device_bytes=lambda _: next(free)) == [False, False]


def test_a_row_without_memory_beside_the_others_is_crowded_and_has_not_failed(run):
    crowded = {"eager": [Worker(error=OutOfMemoryError("full"))], "half": [Worker()]}
    with pytest.raises(CrowdedError):
        open_replicas(run, crowded, 0)
    assert not run.collector.failures


def opened_together(run: Run, *workers: Worker):
    """Both rows prepared at the same time, the first of them in these workers."""
    run.options = attrs.evolve(run.options, build_together=True)
    return open_replicas(run, {"eager": workers, "half": [Worker() for _ in workers]}, 0)


def test_what_the_first_replica_has_compiled_is_not_compiled_again_beside_it(run):
    """All first replicas are built at the same time, and a row's others after its first."""
    begun: list[tuple[str, KnownCalls | None]] = []

    class Building(Worker):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def begin_open(self, known: KnownCalls | None = None) -> None:
            super().begin_open(known)
            begun.append((self.name, known))

    run.options = attrs.evolve(run.options, build_together=True)
    open_replicas(
        run, {row: [Building(f"{row} {i}") for i in range(2)] for row in ("eager", "half")}, 0
    )
    assert [name for name, known in begun if known is None] == ["eager 0", "half 0"]
    assert [name for name, known in begun if known is not None] == ["eager 1", "half 1"]


@pytest.mark.parametrize(
    ("device", "cores", "waits"),
    [("cuda", 4, False), ("cuda", 3, True), ("cpu", 64, True)],
)
def test_where_there_are_cores_for_all_builds_no_replica_waits_for_the_first(device, cores, waits):
    options = Options(budget_s=1.0, build_together=True)
    run = make_run(options, [Tuned()], cores=lambda: cores, free_device_bytes=lambda _: None)
    run.workloads = {"": attrs.evolve(run.any_workload, device=torch.device(device))}
    further = {row.name: Worker() for row in run.rows}
    open_replicas(run, {name: [Worker(), worker] for name, worker in further.items()}, 0)
    assert (further["tuned"].known is not None) == waits
    assert further["eager"].known is not None  # it builds nothing


class Late(Worker):
    """Ready once it was asked some times.

    Attributes:
        asked: whether the first call had a limit, for each time.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.asked = times, list[bool]()

    def is_ready(self, within_s: float) -> bool:
        self.asked.append(self.first_call_limit is not None)
        return len(self.asked) >= self.times


def test_a_row_that_is_ready_does_not_wait_for_slower_ones(run):
    further: list[str] = []

    class Further(Worker):
        def __init__(self, row: str) -> None:
            super().__init__()
            self.row = row

        def begin_open(self, known: KnownCalls | None = None) -> None:
            super().begin_open(known)
            further.append(self.row)

    run.options = attrs.evolve(run.options, build_together=True)
    workers = {"eager": [Late(5), Further("eager")], "half": [Late(2), Further("half")]}
    assert {*open_replicas(run, workers, 0)} == {"eager", "half"}
    assert further == ["half", "eager"]


def test_a_row_with_a_limit_is_not_asked_before_the_row_that_gives_the_limit():
    run = make_run(Options(budget_s=1.0, build_together=True))
    run.rows = [attrs.evolve(row, may_be_left_out=row.name == "half") for row in run.rows]
    limited = Late(3)
    open_replicas(run, {"half": [limited], "eager": [Late(4)]}, 0)
    assert limited.asked == [True] * 3


def test_a_replica_that_fails_when_called_alone_does_not_affect_the_others(run):
    broken, whole = Worker(error_alone=PreparationError("no call", "try again")), Worker()
    row_states = opened_together(run, broken, whole)
    assert (broken.killed, whole.killed) == (True, False)
    assert [prepared.worker for prepared in row_states["eager"].replicas] == [whole]
    assert (
        "only one process, because another one failed (no call)" in row_states["eager"].warnings[0]
    )
    assert not run.collector.failures


def test_of_rows_built_together_only_the_first_replica_is_measured_again(run):
    """A call of the others is as long, and measuring it takes half a second."""
    first, second = Worker(), Worker(error_alone=PreparationError("it was called again"))
    row_states = opened_together(run, first, second)
    assert [prepared.worker for prepared in row_states["eager"].replicas] == [first, second]
    assert not row_states["eager"].warnings


def test_a_row_whose_replicas_all_fail_when_called_alone_has_failed(run):
    row_states = opened_together(
        run, *(Worker(error_alone=PreparationError("no call")) for _ in "12")
    )
    assert list(row_states) == ["half"]
    assert [row.name for row in run.rows] == ["half"]
    assert "eager" in run.collector.failures


def test_a_row_without_memory_when_it_is_called_alone_is_crowded(run):
    full = OutOfMemoryError("full")
    with pytest.raises(CrowdedError):
        opened_together(run, Worker(error_alone=full), Worker(error_alone=full))


class WorkerPool:
    """Starts simulated workers; from its second start on, the second row's may fail."""

    folder = Path()

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.workers = error, list[tuple[str, Worker]]()

    def write(self, name: str, _: object) -> Path:
        return Path(name)

    write_workload = write

    def start(self, _: Path, row: Path, with_model: bool) -> Worker:
        assert not with_model  # each is alone
        again = row.stem in dict(self.workers)
        worker = Worker(error=self.error if again and row.stem == "backend-1" else None)
        self.workers.append((row.stem, worker))
        return worker


def restarted(rounds: int, error: Exception | None = None, passes: bool = True) -> Run:
    """A run of rows that are restarted in each round."""
    run = make_run(
        Options(budget_s=60.0, evidence=False, passes=passes),
        worker_pool=lambda: contextlib.nullcontext(WorkerPool(error)),
    )
    restarts.measure(run, max_rounds=rounds)
    return run


@pytest.mark.parametrize("passes", [True, False])
def test_restarted_rows_take_passes_only_where_they_are_wanted(passes):
    run = restarted(1, passes=passes)
    taken = [part.replicas[0].passes_taken for (part,) in run.finished.values()]
    assert taken == [passes, passes]


def test_a_row_that_fails_at_a_restart_keeps_its_rounds():
    run = restarted(2, WorkerError("it died", "look"))
    assert "a later round failed: it died; look" in run.finished["half"][0].warnings
    assert not run.collector.failures


def test_the_first_call_of_a_restarted_row_is_limited_in_the_first_round_only():
    pool = WorkerPool()
    run = make_run(
        Options(budget_s=60.0, evidence=False), worker_pool=lambda: contextlib.nullcontext(pool)
    )
    run.rows = [attrs.evolve(row, may_be_left_out=row.name == "half") for row in run.rows]
    restarts.measure(run, max_rounds=2)
    names, workers = zip(*pool.workers, strict=True)
    assert names[:2] == ("backend-0", "backend-1")  # the reference, whose calls give the limit
    assert workers[0].first_call_limit is None
    limit = workers[1].first_call_limit
    assert (limit.reference, limit.reference_call_s) == ("eager", pytest.approx(CALL_S, rel=0.2))
    assert [worker.first_call_limit for worker in workers[2:]] == [None, None]


def test_a_row_that_fails_in_a_later_session_keeps_the_earlier_ones():
    run = restarted(1)
    run.repeats = "session"
    row = run.rows[1]
    run.fail(row, WorkerError("it died", "look"))
    assert run.finished[row.name][0].warnings == ["a later session failed: it died; look"]
    assert row not in run.rows
    assert not run.collector.failures


def test_other_processes_on_the_gpu_are_in_the_samples_of_rounds():
    run = make_run(compute_processes=lambda _: {7: "python", 9: "Xorg"})
    row_state = opened(run)
    measure_rounds(run, [row_state])
    sampled = run.collector.conditions
    assert {one.gpu_processes for one in sampled} == {("Xorg (process 9)",)}
    assert sampled[-1].last_round == row_state.complete_rounds - 1


def test_workers_that_have_died_are_not_taken_for_processes_of_others():
    run = make_run(compute_processes=lambda _: {7: "python", 9: "python"})
    row_state = opened(run)
    row_state.error = WorkerError("it died", "look")
    monitor = monitor_of(run, [row_state])
    monitor.start()
    monitor.after_round(0)
    monitor.finish()
    assert [one.gpu_processes for one in run.collector.conditions] == [()]


@pytest.mark.parametrize("shared", [None, 2])
def test_only_the_cores_that_workers_may_use_are_watched(monkeypatch, shared):
    monkeypatch.setattr(cpu_affinity, "usable_cores", lambda: (0, 1, 2, 3))
    cores = cpu_affinity.reserved_cores(shared) if shared else (0, 1, 2, 3)
    watched = []
    run = make_run(read_cpu_times=watched.append)
    run.shared_cores = shared
    monitor_of(run, [opened(run)]).start()
    assert watched == [cores]


def test_rounds_with_restarts_are_sampled():
    sampled = restarted(2).collector.conditions
    assert {i for one in sampled for i in range(one.first_round, one.last_round + 1)} == {0, 1}


@pytest.mark.parametrize(
    ("wanted", "busy", "left"), [(None, 1.1, 2), (None, 3.4, None), (2, 3.4, 2), (0, 1.1, None)]
)
def test_models_that_compute_on_several_cores_keep_all_cores(monkeypatch, wanted, busy, left):
    monkeypatch.setattr(cpu_affinity, "usable_cores", lambda: (0, 1, 2, 3))
    run = make_run(Options(shared_cores=wanted), default_shared_cores=lambda _: 2)
    row_state = opened(run)
    row_state.replicas[0].opening = attrs.evolve(row_state.replicas[0].opening, cores_busy=busy)
    leave_all_cores_to_busy_calls(run, [row_state])
    assert run.shared_cores == left
    noted = "calls of eager use 3.4 CPU cores" in " ".join(run.collector.run_notes)
    assert noted == (wanted is None and left is None)


class Recorded(Prepared):
    """A prepared backend that keeps which passes it is to leave out."""

    left_out: Mapping[str, str] = MappingProxyType({})

    def passes(self, call_s: float, capture: bool, leave_out: Mapping[str, str]) -> Passes:
        self.left_out = leave_out
        return Passes()


def test_restarted_rows_leave_out_what_their_share_of_the_budget_has_no_time_for():
    run = make_run(
        Options(budget_s=0.2),
        worker_pool=lambda: contextlib.nullcontext(WorkerPool()),
    )
    restarts.measure(run, max_rounds=1)
    (note,) = run.collector.run_notes
    assert note == "the budget of 0.2 s left no time for profiling; a budget of 1 s is enough"
    assert all(part.evidence is None for (part,) in run.finished.values())


@pytest.mark.parametrize(
    ("passes", "left_out"),
    [
        (True, {"energy": NO_TIME}),
        (False, None),
        (
            ("energy", "wall"),
            {"energy": NO_TIME} | dict.fromkeys(("transfers", "graph", "device"), NOT_WANTED),
        ),
    ],
)
def test_passes_that_are_not_wanted_or_have_no_time_are_left_out(run, passes, left_out):
    row_state = opened(run)
    prepared = row_state.replicas[0] = Recorded(Worker())
    prepared.left_out = None
    row_state.warmup_calls, row_state.blocks = [0], [Block(0, 0, 0, (0.01,))]
    done = FinishedRow.of(row_state, "budget")
    done.run_probes(
        output_only=False,
        passes=Options(passes=passes).pass_names,
        leave_out=("energy", "profile"),
    )
    assert prepared.left_out == left_out


def test_a_session_has_its_share_of_the_budget_and_only_the_first_one_passes():
    run = make_run(Options(budget_s=9.0, sessions=3))
    first = run.begin_session([opened(run)])
    assert (first.budget_s, first.passes, first.profile) == (3.0, PASSES, True)
    run.finished["eager"] = []
    second = run.begin_session([opened(run)])
    assert (second.passes, second.profile) == ((), False)


def test_without_a_row_that_could_be_opened_there_are_no_rounds(run):
    assert measure_rounds(run, []) == "budget"


def test_ctrl_c_is_handled_only_where_pythons_own_handler_is_in_force(monkeypatch):
    interrupts = Interrupts()
    monkeypatch.setattr("signal.getsignal", lambda _: "an application's own")
    with interrupts.held():
        pass
    assert not interrupts.requested


def test_a_worker_is_planned_with_its_weights_and_the_reference_with_a_copy_of_its_own():
    asked = []

    def plan_memory(each_bytes, once_bytes):
        asked.append((each_bytes, once_bytes))

    weights_bytes, inputs_bytes = 4 * 6, 8 * 2  # of the linear layer of `make_run`
    for evidence in (True, False):
        options = Options(budget_s=1.0, evidence=evidence)
        replica_count(make_run(options, workers_that_fit=plan_memory))
    base = memory.worker_bytes(torch.device("cpu"), compiles=False)
    each_bytes = base + weights_bytes + inputs_bytes
    assert asked == [(each_bytes, 3 * weights_bytes), (each_bytes, 2 * weights_bytes)]


def test_rows_that_compile_are_planned_with_more_memory():
    asked = []
    for backend in ("half", "compile"):
        replica_count(
            make_run(backends=[backend], workers_that_fit=lambda each, _: asked.append(each))
        )
    plain, compiling = asked
    assert compiling > plain


@pytest.mark.parametrize(("left", "replicas"), [(None, 2), (100 + 2 * 4, 1), (100 + 4 * 4, 2)])
def test_the_limit_of_open_files_limits_the_replicas(left, replicas):
    run = make_run(workers_that_fit=lambda *_: None, descriptors_left=lambda: left)
    assert replica_count(run) == replicas
    assert [("ulimit -n" in note) for note in run.collector.notes] == [True] * (replicas == 1)


def test_rows_that_cannot_be_open_at_once_are_restarted():
    run = make_run(workers_that_fit=lambda *_: None, descriptors_left=lambda: 100 + 4)
    with pytest.raises(DoesNotFitError, match="limit of open files allows only 1 workers at once"):
        replica_count(run)


def test_a_worker_backend_is_opened_and_timed_in_its_worker():
    opening = SimulatedBackend(SimulatedDevice(random.Random(0)), 0.01).opening

    class Answers:
        is_opening = False

        def ask(self, what, limit_s=None, **arguments):
            return (
                {**attrs.asdict(opening), "labels": ["sync_inside"]} if what == "open" else [0.01]
            )

    prepared = WorkerBackend(Answers())
    assert prepared.opening.labels == ("sync_inside",)
    assert prepared.block(1, 1, 0) == (0.01,)
