"""`tune` as on a GPU, with real processes on a CPU: builds go on beside what is measured."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.results.tuning import BEST, Accuracy
from precisionbench.workflows.tuning import tune as tune_module
from precisionbench.workflows.tuning.bench import Judged
from precisionbench.workflows.tuning.worker_bench import WorkerBench

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("listed_once")]


@attrs.define
class Judging:
    """What is judged in each call, and what happens while one configuration is."""

    groups: list[list[str]] = attrs.field(factory=list)
    stops: int = 0
    interrupts: str = ""  # specs that begin so are interrupted once
    _all = WorkerBench.accuracies
    _one = WorkerBench.accuracy

    def accuracies(self, bench: WorkerBench, specs: Sequence[str]) -> Judged:
        self.groups.append([*specs])
        return Judging._all(bench, specs)

    def accuracy(self, bench: WorkerBench, spec: str) -> Accuracy:
        if self.interrupts and spec.startswith(self.interrupts):
            self.interrupts = ""
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)  # so that the main thread takes it meanwhile
        return Judging._one(bench, spec)


@pytest.fixture
def judging(monkeypatch) -> Judging:
    """As on a GPU, on a CPU."""
    seen, stop = Judging(), WorkerPool.stop

    def stopped(pool: WorkerPool) -> None:
        seen.stops += 1
        stop(pool)

    monkeypatch.setattr(tune_module, "_ahead", lambda *_: 2)
    monkeypatch.setattr(WorkerBench, "judges", 3)
    monkeypatch.setattr(WorkerBench, "accuracies", lambda *given: seen.accuracies(*given))
    monkeypatch.setattr(WorkerBench, "accuracy", lambda *given: seen.accuracy(*given))
    monkeypatch.setattr(WorkerPool, "stop", stopped)
    return seen


def tuned(**options: Any) -> pb.Tuned:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3)
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    specs = ["eager", "half:dtype=bfloat16", "compile"]
    return pb.tune(
        nn.Sequential(*layers).eval(), inputs, include=specs, budget_s=45, device="cpu",
        journal=None, **options,
    )  # fmt: skip


def threads_of_torch() -> list[int]:
    """In this thread, and in a new one."""
    seen = [torch.get_num_threads()]
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    return seen


@pytest.mark.parametrize("batch_sizes", [None, [8]])
def test_several_are_judged_at_once_while_others_are_built(judging, batch_sizes):
    before = threads_of_torch()
    found = tuned(batch_sizes=batch_sizes)
    assert max(map(len, judging.groups)) >= 2
    assert not judging.stops
    assert found.data.elapsed_s <= 1.1 * 45
    compiled = [one for one in found.trials if one.spec.startswith("compile") and one.build_s]
    assert compiled
    assert all(trial.accuracy for trial in compiled if trial.speedup)
    assert [trial.spec for trial in found.trials if trial.outcome == BEST] == [found.spec]
    assert found.error.value < 1e-2
    assert threads_of_torch() == before


def test_a_ctrl_c_while_something_is_judged_keeps_the_best_so_far(judging):
    before = threads_of_torch()
    judging.interrupts = "compile"
    found = tuned()
    assert judging.stops == 1
    assert found.data.ended_by == "interrupted"
    assert not any(trial.accuracy for trial in found.trials if trial.spec.startswith("compile"))
    assert threads_of_torch() == before
