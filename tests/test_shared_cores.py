"""Workers share a few CPU cores while they are measured: by default on a GPU."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.backends.eager import Eager
from precisionbench.errors import SpecError
from precisionbench.measure.worker.first_calls import warm_up
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.system import cpu_affinity
from precisionbench.torchtools.timer import Timer
from test_timer import FakeClock

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="CPU affinity is set on Linux only"
)


NUMBERS = itertools.count()


@attrs.frozen
class RecordsCores(Backend):
    """Writes to a file on which cores it is prepared and called."""

    name: ClassVar[str] = "records-cores"
    file: str = ""

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        call = inputs.bind(model)
        self.record_cores()

        def recorded_call():
            self.record_cores()
            return call()

        yield recorded_call

    def record_cores(self) -> None:
        with Path(self.file).open("a") as out:
            out.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}\n")


@attrs.frozen
class ComputesOnThreads(RecordsCores):
    """Starts a thread, as torch does for its operations, and writes on which cores it runs."""

    name: ClassVar[str] = "computes-on-threads"

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        ended = threading.Event()
        helper = threading.Thread(target=ended.wait, daemon=True)
        helper.start()

        with RecordsCores.prepare(self, model, inputs) as call:

            def recorded_call():
                with Path(self.file).open("a") as out:
                    out.write(f"helper {sorted(os.sched_getaffinity(helper.native_id))}\n")
                return call()

            yield recorded_call
        ended.set()


def cores_of(file: Path) -> dict[str, list[str]]:
    """The cores of each process, call by call."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        pid, cores = line.split(" ", 1)
        found.setdefault(pid, []).append(cores)
    return found


def measured(backend: Backend, shared: int | None) -> pb.Comparison:
    """One backend in two processes, whose calls share some cores."""
    return pb.compare(
        nn.Linear(8, 8),
        torch.rand(2, 8),
        backends=[backend],
        reference=backend,
        device="cpu",
        replicas=2,
        budget_s=0.2,
        shared_cores=shared,
        evidence=False,  # profiling uses all cores again
    )


@pytest.mark.parametrize("shared", [None, 0, 1])
def test_workers_share_cores_once_they_are_prepared(tmp_path, shared):
    mine = sorted(os.sched_getaffinity(0))
    file = tmp_path / "cores"
    found = measured(RecordsCores(str(file)), shared)
    assert found.data.shared_cores == (shared or None)
    processes = cores_of(file)
    assert len(processes) == 2
    for calls in processes.values():
        assert calls[0] == str(mine)  # builds and tunes on all of them
        last = set(json.loads(calls[-1]))  # other tests at the same time reserve cores, too
        assert last <= set(mine)
        assert len(last) == (shared or len(mine))
    assert sorted(os.sched_getaffinity(0)) == mine


def test_threads_that_compute_keep_their_cores_where_calls_are_pinned(tmp_path):
    """On one core, two took 8 ms for an operation of 0.1 ms (benchmarks/pinned_calls.py)."""
    mine, file = sorted(os.sched_getaffinity(0)), tmp_path / "cores"
    measured(ComputesOnThreads(str(file)), 1)
    found = cores_of(file)
    assert set(found.pop("helper")) == {str(mine)}
    assert [len(json.loads(calls[-1])) for calls in found.values()] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shared_cores": -1}, "shared_cores is -1"),
        ({"shared_cores": 10_000}, "give a whole number from 0 to"),
        ({"shared_cores": "2"}, "shared_cores is '2'"),
        ({"shared_cores": 1, "launcher": "inline"}, "requires worker processes"),
    ],
)
def test_numbers_of_cores_that_cannot_be_shared_are_refused(arguments, sentence):
    with pytest.raises(SpecError, match=sentence):
        pb.compare(nn.Linear(8, 8), torch.rand(2, 8), device="cpu", **arguments)


@pytest.mark.parametrize(
    ("device", "cores", "count"),
    [("cuda", 16, 2), ("cuda", 4, 2), ("cuda", 3, None), ("cpu", 16, None)],
)
def test_two_cores_are_shared_on_a_gpu_where_there_are_enough(monkeypatch, device, cores, count):
    monkeypatch.setattr(cpu_affinity, "usable_cores", lambda: tuple(range(cores)))
    assert cpu_affinity.default_shared_cores(device) == count


@pytest.fixture
def cores(monkeypatch) -> tuple[int, ...]:
    """Eight cores that no other test reserves."""
    first = 1000 * os.getpid() + 8 * next(NUMBERS)
    found = tuple(range(first, first + 8))
    monkeypatch.setattr(cpu_affinity, "usable_cores", lambda: found)
    monkeypatch.setattr(cpu_affinity, "_reserved", cpu_affinity._Reservations())
    return found


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({}, (6, 7)),
        ({0: 3900, 1: 5100, 2: 5100, 3: 3900, 6: 2800, 7: 2800}, (1, 2)),
        (dict.fromkeys(range(8), 1024), (6, 7)),
    ],
)
def test_the_fastest_cores_are_chosen(cores, monkeypatch, tmp_path, speeds, chosen):
    monkeypatch.setattr(cpu_affinity, "_CPUS", tmp_path)
    for core, speed in speeds.items():
        folder = tmp_path / f"cpu{cores[core]}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{speed}000\n")
    assert cpu_affinity.reserved_cores(2) == tuple(cores[core] for core in chosen)


def reserving(cores: tuple[int, ...], count: int) -> subprocess.Popen[str]:
    """A process that reserves some of the cores, prints which, and ends with its input."""
    code = (
        "from precisionbench.system import cpu_affinity as a\n"
        f"a.usable_cores = lambda: {cores}\n"
        f"print(*a.reserved_cores({count}), flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


def test_processes_that_measure_at_the_same_time_use_different_cores(cores):
    with reserving(cores, 2) as other:
        assert other.stdout.readline().split() == [str(core) for core in cores[6:]]
        mine = cpu_affinity.reserved_cores(3)
        assert mine == cores[3:6]
        assert cpu_affinity.reserved_cores(2) == mine[1:]  # the same ones each time
        assert cpu_affinity.reserved_cores(6) == cores[:6]
        assert cpu_affinity.reserved_cores(7) == cores[1:]  # too few: the fastest of all
        other.communicate("\n")
    assert cpu_affinity.reserved_cores(7) == cores[1:]  # still the same ones
    with reserving(cores, 1) as another:  # whose reservation ended with its process
        assert another.stdout.readline().split() == [str(cores[7])]
        another.communicate("\n")


def test_a_forked_process_has_no_reservation_of_its_own(cores, monkeypatch):
    mine = cpu_affinity.reserved_cores(2)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert set(cpu_affinity.reserved_cores(2)).isdisjoint(mine)


def test_where_names_cannot_be_bound_the_fastest_cores_are_used(cores, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(cpu_affinity.socket, "socket", refuse)
    assert cpu_affinity.reserved_cores(2) == cores[6:]


def test_a_worker_measures_how_many_cores_a_call_keeps_busy():
    class Sleeper(nn.Module):
        def forward(self, x):
            time.sleep(0.05)
            return x

    asleep = busy_cores(Sleeper())
    assert asleep < 0.5
    # near 1 on a quiet machine, and less where other processes compute
    assert 3 * asleep < busy_cores(nn.Linear(1000, 1000)) < 1.5


def test_busy_cores_are_cpu_seconds_for_each_second(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now_s)
    monkeypatch.setattr(time, "process_time", lambda: 0.9 * clock.now_s)
    found = warm_up(clock.work(0.01), Timer(clock))
    assert found.cores_busy == pytest.approx(0.9)


def busy_cores(model: nn.Module) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        workload = resolve(model, torch.rand(1000, 1000), device="cpu", batch_size=None, seed=0)
        with InlineLauncher.on_device_of(workload).open(Eager()) as prepared:
            return prepared.opening.cores_busy
    finally:
        torch.set_num_threads(threads)
