"""`tune` as on a GPU, with real processes on a CPU: builds go on beside what is measured."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.results.tuning import BEST
from precisionbench.workflows.tuning import tune as tune_module
from precisionbench.workflows.tuning.bench import WorkerBench

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("listed_once")]

SPECS = ["eager", "half:dtype=bfloat16", "compile"]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tune_module, "_ahead", lambda *_: 2)
    monkeypatch.setattr(WorkerBench, "judges", 2)


def tuned(on_step, **options: Any) -> pb.Tuned:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 8)).eval()
    inputs = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    return pb.tune(
        model, inputs, include=SPECS, budget_s=45, device="cpu", journal=None,
        on_progress=lambda progress: on_step(progress.step), **options,
    )  # fmt: skip


def threads_of_torch() -> list[int]:
    """In this thread, and in a new one."""
    seen = [torch.get_num_threads()]
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    return seen


@pytest.mark.parametrize("batch_sizes", [None, [16]])
def test_what_is_built_meanwhile_is_judged_and_timed(batch_sizes):
    steps: list[str] = []
    before = threads_of_torch()
    found = tuned(steps.append, batch_sizes=batch_sizes)
    assert found.data.elapsed_s <= 1.1 * 45
    compiled = [one for one in found.trials if one.spec.startswith("compile") and one.build_s]
    assert compiled
    assert all(trial.accuracy for trial in compiled if trial.speedup)
    assert [trial.spec for trial in found.trials if trial.outcome == BEST] == [found.spec]
    assert found.error.value < 1e-2
    assert threads_of_torch() == before


def test_a_ctrl_c_while_several_are_judged_keeps_the_best_so_far():
    before, judged = threads_of_torch(), []

    def interrupt(step: str) -> None:
        if step.startswith("judging") and "compile" in step and not judged:
            judged.append(step)
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()

    found = tuned(interrupt)
    assert judged
    assert found.data.ended_by == "interrupted"
    assert found.spec in {trial.spec for trial in found.trials}
    assert threads_of_torch() == before
