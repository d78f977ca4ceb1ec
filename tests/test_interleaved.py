"""How many replicas there are, and what comes of those that cannot be had.

Worker processes are doubles here; real ones fail in test_faults.py.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import torch
from torch import nn

import worlds
from precisionbench._internal.interrupts import Interrupts
from precisionbench.errors import OutOfMemoryError, PreparationError, WorkerError
from precisionbench.measure import interleaved
from precisionbench.measure.collector import Collected
from precisionbench.measure.rows import plan
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.model.workload import resolve
from precisionbench.system import memory

GIB = 1 << 30


class Worker:
    """A process that opens as its world says, or fails."""

    is_opening = False

    def __init__(
        self,
        call_s: float = worlds.CALL_S,
        error: Exception | None = None,
        error_alone: Exception | None = None,
    ) -> None:
        self.call_s, self.error, self.error_alone, self.killed = call_s, error, error_alone, False
        self.pid = 7

    def begin_to_open(self) -> None:
        self.is_opening = True

    def look_alone(self) -> None:
        if self.error_alone:
            raise self.error_alone

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def run(monkeypatch):
    """A run of two rows whose replicas are simulated."""
    world = worlds.World(random.Random(0))

    def prepared(worker: Worker, *_):
        if worker.error:
            raise worker.error
        return SimpleNamespace(
            worker=worker,
            opening=worlds.PreparedBackend(world, worker.call_s).opening,
            block=worlds.PreparedBackend(world, worker.call_s).block,
            look_alone=worker.look_alone,
        )

    monkeypatch.setattr(interleaved, "WorkerBackend", prepared)
    rows, reference = plan(["half"], "eager")
    workload = resolve(nn.Linear(2, 2), torch.rand(1, 2), device="cpu", batch_size=None, seed=0)
    collected = Collected(rows, reference, 1, (), lambda _: None)
    return interleaved._Run(workload, collected, interleaved.Options(1.0, None, 1, 0, 0.0))


@pytest.mark.parametrize(("fit", "replicas"), [(None, 2), (2, 1), (3, 1), (4, 2), (100, 2)])
def test_as_many_replicas_as_the_host_holds(run, monkeypatch, fit, replicas):
    monkeypatch.setattr(interleaved, "workers_that_fit", lambda *_: fit)
    assert run._replicas() == replicas


def test_a_host_that_cannot_hold_one_worker_of_each_row(run, monkeypatch):
    monkeypatch.setattr(interleaved, "workers_that_fit", lambda *_: 1)
    with pytest.raises(interleaved._DoesNotFitError, match="holds 1 workers at once"):
        run._replicas()


def opened(run, *further: Worker, free: list[int | None] | None = None, monkeypatch=None):
    """Both rows opened, the first of them with further workers; its row_state."""
    if free is not None:
        told = iter(free)
        monkeypatch.setattr(interleaved, "free_device_bytes", lambda _: next(told))
    workers = {"eager": [Worker(), *further], "half": [Worker(), *[Worker() for _ in further]]}
    return run._open(workers, 0)["eager"]


def test_a_further_replica_that_fails_leaves_the_row_with_fewer(run):
    broken = Worker(error=PreparationError("no engine", "try again"))
    row_state = opened(run, broken)
    assert broken.killed
    assert "1 replica(s) only, because the next one failed (no engine)" in row_state.warnings[0]


def test_a_backend_that_takes_long_to_build_has_one_replica(run, monkeypatch):
    monkeypatch.setattr(interleaved, "_LONG_BUILD_S", 0.1)
    row_state = opened(run, Worker())
    assert "because building it takes 0 s" in row_state.warnings[0]


def test_a_replica_that_the_device_has_no_room_for_is_not_started(run, monkeypatch):
    free = [10 * GIB, 6 * GIB, 6 * GIB, 4 * GIB, 4 * GIB, 9 * GIB]
    crowded = Worker()
    row_state = opened(run, crowded, free=free, monkeypatch=monkeypatch)
    assert crowded.killed
    assert "because the device's memory is full" in row_state.warnings[0]


def test_a_row_without_memory_beside_the_others_is_told_apart_from_one_that_fails(run):
    crowded = {"eager": [Worker(error=OutOfMemoryError("full"))], "half": [Worker()]}
    with pytest.raises(interleaved._CrowdedError):
        run._open(crowded, 0)


def opened_together(run, *workers: Worker):
    """Both rows prepared at the same time, the first of them in these workers."""
    run.options = attrs.evolve(run.options, build_together=True)
    return run._open({"eager": workers, "half": [Worker() for _ in workers]}, 0)


def test_a_replica_that_fails_alone_takes_no_other_with_it(run):
    broken, whole = Worker(error_alone=PreparationError("no call", "try again")), Worker()
    row_states = opened_together(run, broken, whole)
    assert (broken.killed, whole.killed) == (True, False)
    assert [prepared.worker for prepared in row_states["eager"].replicas] == [whole]
    assert (
        "1 replica(s) only, because another one failed (no call)" in row_states["eager"].warnings[0]
    )
    assert not run.collected.failures


def test_a_row_without_a_replica_that_works_alone_has_failed(run):
    row_states = opened_together(
        run, *(Worker(error_alone=PreparationError("no call")) for _ in "12")
    )
    assert list(row_states) == ["half"]
    assert [row.name for row in run.rows] == ["half"]
    assert "eager" in run.collected.failures


def test_a_row_that_finds_no_memory_when_it_is_called_again_is_crowded(run):
    full = OutOfMemoryError("full")
    with pytest.raises(interleaved._CrowdedError):
        opened_together(run, Worker(error_alone=full), Worker(error_alone=full))


class WorkerPool:
    """Starts doubles; from its second start on, a row's may fail."""

    folder = Path()

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.started = error, set[Path]()

    def write(self, name: str, _: object) -> Path:
        return Path(name)

    def start(self, _: Path, row: Path) -> Worker:
        again = row in self.started
        self.started.add(row)
        return Worker(error=self.error if again and row.stem == "backend-1" else None)


def restarted(run, monkeypatch, rounds: int, error: Exception | None = None) -> list[bool]:
    """Rows that are started anew in each round; whether each was asked for its passes."""
    asked: list[bool] = []
    monkeypatch.setattr(interleaved, "MAX_ROUNDS", rounds)
    monkeypatch.setattr(
        interleaved, "WorkerPool", lambda: contextlib.nullcontext(WorkerPool(error))
    )
    monkeypatch.setattr(interleaved.finished, "close", lambda _: None)
    monkeypatch.setattr(
        interleaved.FinishedRow, "look", lambda _, everything, passes=True: asked.append(passes)
    )
    run.options = attrs.evolve(run.options, budget_s=60.0, evidence=False)
    run.restarts()
    return asked


@pytest.mark.parametrize("passes", [True, False])
def test_rows_that_are_started_anew_are_asked_for_the_passes_that_are_wanted(
    run, monkeypatch, passes
):
    run.options = attrs.evolve(run.options, passes=passes)
    assert restarted(run, monkeypatch, 1) == [passes, passes]


def test_a_row_that_fails_when_it_is_started_anew_keeps_its_rounds(run, monkeypatch):
    restarted(run, monkeypatch, 2, WorkerError("it died", "look"))
    assert "a later round failed: it died; look" in run.finished["half"][0].warnings
    assert not run.collected.failures


def test_a_row_that_fails_in_a_later_session_keeps_the_earlier_ones(run):
    row = run.rows[1]
    run.finished[row.name] = [SimpleNamespace(warnings=[])]
    run._failed(row, WorkerError("it died", "look"))
    assert run.finished[row.name][0].warnings == ["a later session failed: it died; look"]
    assert row not in run.rows
    assert not run.collected.failures


def test_strangers_on_the_gpu_are_a_note_of_the_run_once(run, monkeypatch):
    monkeypatch.setattr(interleaved.nvml, "processes", lambda *_: {7: "python", 9: "Xorg"})
    monkeypatch.setattr(interleaved.nvml, "opened", lambda _: contextlib.nullcontext(("", "")))
    row_states = {"eager": opened(run)}
    run._name_strangers(row_states)
    run._name_strangers(row_states)
    (note,) = run.collected.run_notes
    assert "Xorg (process 9)" in note


@pytest.mark.parametrize(
    ("wanted", "busy", "left"), [(None, 1.1, 2), (None, 3.4, None), (2, 3.4, 2), (0, 1.1, None)]
)
def test_models_that_compute_on_several_cores_keep_them(run, monkeypatch, wanted, busy, left):
    monkeypatch.setattr(interleaved.affinity, "default_count", lambda _: 2)
    run.options = attrs.evolve(run.options, shared_cores=wanted)
    run.shared_cores = interleaved.shared_cores(wanted, "cuda")
    row_state = opened(run)
    row_state.replicas[0].opening = attrs.evolve(row_state.replicas[0].opening, cores_busy=busy)
    run._leave_cores([row_state])
    assert run.shared_cores == left
    told = "calls of eager keep 3.4 CPU cores busy" in " ".join(run.collected.run_notes)
    assert told == (wanted is None and left is None)


def test_rounds_without_a_row_that_could_be_opened_are_none(run):
    assert run._rounds([]) == "budget"


def test_only_the_main_thread_under_pythons_own_handler_takes_ctrl_c(monkeypatch):
    interrupts = Interrupts()
    monkeypatch.setattr("signal.getsignal", lambda _: "an application's own")
    with interrupts.held():
        pass
    assert not interrupts.requested


@pytest.fixture
def host(tmp_path):
    def make(**files: str):
        for name, text in files.items():
            file = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def test_free_memory_is_the_containers_where_that_is_less(host):
    root = host(
        proc__meminfo="MemTotal: 16 kB\nMemAvailable:    1024 kB\n",
        sys__fs__cgroup__memory_dot_max="600000\n",
        sys__fs__cgroup__memory_dot_current="100000\n",
    )
    assert memory.free_host_bytes(root) == 500_000


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc__meminfo": "nothing known\n"}, None),
        ({"proc__meminfo": "MemAvailable: 1 kB\n"}, 1024),
        (
            {
                "sys__fs__cgroup__memory_dot_max": "max\n",
                "sys__fs__cgroup__memory_dot_current": "5\n",
            },
            None,
        ),
    ],
)
def test_what_a_system_does_not_tell_is_left_open(host, files, free):
    assert memory.free_host_bytes(host(**files)) == free


def test_workers_that_fit_depend_on_the_model(monkeypatch):
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 10 * GIB)
    cpu = torch.device("cpu")
    small, large = memory.workers_that_fit(cpu, 0), memory.workers_that_fit(cpu, 2 * GIB)
    assert small == 13
    assert large == 1
    monkeypatch.setattr(memory, "free_host_bytes", lambda: None)
    assert memory.workers_that_fit(cpu, 0) is None


def test_a_seat_is_what_its_worker_says():
    told = worlds.PreparedBackend(worlds.World(random.Random(0)), 0.01).opening

    class Answers:
        is_opening = False

        def ask(self, what, limit_s, **arguments):
            return {**attrs.asdict(told), "labels": ["sync_inside"]} if what == "open" else [0.01]

    prepared = WorkerBackend(Answers())
    assert prepared.opening.labels == ("sync_inside",)
    assert prepared.block(1, 1, 0) == (0.01,)
