"""Rows that stay prepared in their workers: what fails leaves the others as they are."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from torch import nn

from precisionbench.errors import WorkerError
from precisionbench.measure.open_rows import LateError, OpenRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row, plan
from precisionbench.model.workload import resolve
from precisionbench.results.progress import Progress

pytestmark = pytest.mark.slow  # it waits until builds are ended

PLANTED = """
    import contextlib
    import os
    import signal
    import time
    from typing import ClassVar

    import attrs

    from precisionbench.backends import Backend


    @attrs.frozen
    class Crashes(Backend):
        name: ClassVar[str] = "crashes"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            os.kill(os.getpid(), signal.SIGSEGV)
            yield


    @attrs.frozen
    class Hangs(Backend):
        name: ClassVar[str] = "hangs"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            time.sleep(1000)
            yield
"""


def rows(*specs: str) -> list[Row]:
    return [plan([spec], spec)[0][0] for spec in specs]


def test_what_hangs_or_crashes_while_it_builds_ends_alone(install):
    install("planted", PLANTED, crashes="Crashes", hangs="Hangs")
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        errors = opened.open(rows("hangs", "eager", "crashes", "half"), time.monotonic() + 8)
        assert {name: type(error) for name, error in errors.items()} == {
            "hangs": LateError,
            "crashes": WorkerError,
        }
        assert "signal 11" in str(errors["crashes"])
        options = Options.of("quick", replicas=1, budget_s=1.0)
        data = opened.measure(["eager", "half"], "eager", options)
    assert [row.backend for row in data.results] == ["eager", "half"]


def test_a_ctrl_c_before_the_reference_has_a_round_ends_the_search():
    def interrupt(progress: Progress) -> None:
        if progress.stage == "warming_up":
            signal.raise_signal(signal.SIGINT)

    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, interrupt) as opened:
        opened.open(rows("eager"), time.monotonic() + 60)
        with pytest.raises(KeyboardInterrupt):
            opened.measure(["eager"], "eager", Options.of("quick", replicas=1, budget_s=5.0))
