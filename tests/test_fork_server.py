"""Workers are forked from a server that has imported torch, and are as clean as fresh processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.errors import WorkerError
from precisionbench.measure.worker.fork_client import ForkServer, can_fork
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker

pytestmark = pytest.mark.skipif(not can_fork(), reason="workers are forked on Linux only")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


def started(server: ForkServer, tmp_path: Path) -> Worker:
    worker = Worker(tmp_path / "worker.log", server.fork)
    worker.wait_until_imported()
    return worker


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_ended(pid: int) -> bool:
    """Whether a process ends within half a minute; one that nobody has reaped has ended, too."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_worker_is_a_child_of_the_server_in_a_process_group_of_its_own(server, tmp_path):
    worker = started(server, tmp_path)
    assert parent_of(parent_of(worker.pid)) == server.pid
    assert os.getpgid(worker.pid) == worker.pid
    worker.kill()


def test_a_worker_that_dies_is_reported_with_its_signal_and_the_server_goes_on(server, tmp_path):
    worker = started(server, tmp_path)
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(WorkerError, match="ended by signal 11"):
        worker.ask("check_steady")
    again = started(server, tmp_path)
    assert server.is_usable
    again.kill()


def test_the_error_of_a_worker_that_cannot_be_set_up_is_reported(server, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1 << 14})  # no machine has this core
    worker = started(server, tmp_path)
    with pytest.raises(WorkerError, match=r"exit code 1 .*OSError"):
        worker.ask("check_steady")


def test_a_killed_worker_is_reaped_and_killing_it_again_does_nothing(server, tmp_path):
    worker = started(server, tmp_path)
    pid = worker.pid
    worker.kill()
    worker.kill()
    assert has_ended(pid)


def test_a_worker_has_the_environment_and_folder_of_its_parent(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PRECISIONBENCH_TEST_VALUE", "1")
    monkeypatch.chdir(tmp_path)
    worker = started(server, tmp_path)
    assert Path(f"/proc/{worker.pid}/cwd").resolve() == tmp_path
    worker.kill()


def test_workers_end_with_the_server(tmp_path):
    with ForkServer() as server:
        worker = started(server, tmp_path)
        pid = worker.pid
    assert has_ended(pid)
    assert not server.is_usable
    worker.kill()


def test_a_server_that_has_ended_is_replaced_by_fresh_processes():
    with ForkServer() as server:
        server.close()
        with WorkerPool(server) as pool:
            worker = Worker(pool.folder / "worker.log", pool.start_process)
            worker.wait_until_imported()
            assert parent_of(parent_of(worker.pid)) == os.getpid()
            worker.kill()


def test_an_environment_too_large_for_a_message_gives_a_fresh_process(server, monkeypatch):
    for index in range(10):
        monkeypatch.setenv(f"PRECISIONBENCH_TEST_{index}", "x" * 100_000)
    with WorkerPool(server) as pool:
        worker = Worker(pool.folder / "worker.log", pool.start_process)
        worker.wait_until_imported()
        assert parent_of(parent_of(worker.pid)) == os.getpid()
        worker.kill()


def test_the_end_of_a_run_does_not_wait_for_a_server_that_still_imports(tmp_path):
    begun_s = time.monotonic()
    with ForkServer() as server, WorkerPool(server) as pool:
        pool.start(tmp_path / "workload.pt", tmp_path / "backend.pt")
    assert not server.is_usable
    assert time.monotonic() - begun_s < 60


@attrs.frozen
class Patching(Backend):
    """Patches torch for the whole process, and never undoes it."""

    name = "patching"

    def prepare(self, model, inputs):
        torch.relu = torch.nn.functional.relu = lambda x: x * 0
        raise RuntimeError("after it patched torch")


def test_a_worker_after_one_that_patched_torch_is_clean():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.rand(2, 4)
    comparison = pb.compare(
        model,
        x,
        backends=[Patching(), "half:dtype=bfloat16"],
        replicas=1,
        budget_s=0.1,
        evidence=False,
    )
    assert [failure.name for failure in comparison.failures] == ["patching"]
    assert comparison["half:dtype=bfloat16"].agreement.relative_l2 < 0.1
    assert torch.relu is not None
    assert float(torch.relu(torch.tensor(2.0))) == 2.0
