"""Rows that stay prepared in their workers: what fails leaves the others as they are."""

from __future__ import annotations

import os
import signal
import time

import attrs
import pytest
import torch
from torch import nn

from precisionbench.errors import BackendUnavailableError, SlowCallError, WorkerError
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.open_rows import LateError, OpenRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row, plan
from precisionbench.measure.time_budget import TimeBudget
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.model.workload import resolve
from precisionbench.results.progress import Progress
from precisionbench.system import cpu_affinity

pytestmark = pytest.mark.slow  # it waits until builds are ended

PLANTED = """
    import contextlib
    import os
    import signal
    import time
    from typing import ClassVar

    import attrs

    from precisionbench.backends import Backend
    from precisionbench.backends.eager import Eager


    @attrs.frozen
    class Crashes(Backend):
        name: ClassVar[str] = "crashes"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            os.kill(os.getpid(), signal.SIGSEGV)
            yield


    @attrs.frozen
    class Slow(Eager):
        name: ClassVar[str] = "slow"
        tunes_by_timing: ClassVar[bool] = True  # as a compiler does

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            time.sleep(3)
            with Eager.prepare(self, model, inputs) as prepared:
                yield prepared


    @attrs.frozen
    class Imports(Eager):
        name: ClassVar[str] = "imports"
        imports: ClassVar[tuple[str, ...]] = ("slow_to_import",)


    @attrs.frozen
    class Endless(Eager):
        name: ClassVar[str] = "endless"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            yield lambda: time.sleep(1000)


    @attrs.frozen
    class Hangs(Backend):
        name: ClassVar[str] = "hangs"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            time.sleep(1000)
            yield
"""


SHORT = Options.of("quick", replicas=1, budget_s=0.5)


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


def test_rows_are_built_while_others_are_measured(install):
    install("planted", PLANTED, slow="Slow", crashes="Crashes", hangs="Hangs")
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        opened.open(rows("eager"), time.monotonic() + 60)
        opened.begin(rows("slow", "hangs"), {})
        assert not opened.is_ready("slow")
        opened.open(rows("half"), time.monotonic() + 60)  # does not wait for those
        assert not opened.is_ready("slow")
        opened.measure(["eager", "half"], "eager", SHORT)
        opened.wait_ready(time.monotonic() + 60)
        assert opened.is_ready("slow")
        assert opened.open(rows("slow"), time.monotonic()) == {}  # there is nothing to wait for
        assert opened.replicas["slow"][0].opening.build_s > 2.9
        opened.begin(rows("crashes"), {})
        opened.wait_ready(time.monotonic() + 60)
        assert opened.is_ready("crashes")
        assert "signal 11" in str(opened.open(rows("crashes"), time.monotonic() + 60)["crashes"])
        opened.close(["hangs"])
        data = opened.measure(["eager", "slow"], "eager", SHORT)
    assert [row.backend for row in data.results] == ["eager", "slow"]


def test_what_is_begun_and_imports_for_long_is_not_waited_for(install, tmp_path):
    imported = tmp_path / "imported"
    install("planted", PLANTED, imports="Imports")
    install("slow_to_import", f"import time; time.sleep(30); open({str(imported)!r}, 'w').close()")
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        opened.begin(rows("imports"), {})
        assert opened.open(rows("eager"), time.monotonic() + 60) == {}
        assert not imported.exists()


def test_a_row_that_turns_out_to_be_unavailable_is_no_longer_built():
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        opened.open(rows("eager"), time.monotonic() + 60)
        opened.begin(rows("eager:precision=tf32"), {})
        worker = opened._begun["eager:precision=tf32"]
        errors = opened.open(rows("eager:precision=tf32"), time.monotonic() + 60)
        assert isinstance(errors["eager:precision=tf32"], BackendUnavailableError)
        assert not opened.is_begun("eager:precision=tf32")
        assert not worker.is_busy


def test_a_row_whose_first_call_takes_far_too_long_is_ended_in_it(install):
    install("planted", PLANTED, endless="Endless")
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        opened.open(rows("eager"), time.monotonic() + 60)
        call_s = opened.replicas["eager"][0].opening.call_s
        limits = {"endless": WarmCallLimit("eager", call_s), "half": WarmCallLimit("eager", 1.0)}
        begun_s = time.monotonic()
        errors = opened.open(rows("endless", "half"), begun_s + 60, limits)
        assert time.monotonic() - begun_s < 20
        assert [*errors] == ["endless"]
        assert isinstance(errors["endless"], SlowCallError)
        assert errors["endless"].reason.startswith("a call takes more than 2.0 s (eager: ")
        assert [*opened.replicas] == ["eager", "half"]


def test_a_request_that_is_not_answered_in_time_ends_the_worker():
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    with OpenRows.of(workload, None) as opened:
        opened.open(rows("eager"), time.monotonic() + 60)
        ask, begun_s = opened.replicas["eager"][0].ask, time.monotonic()
        block = {"calls_per_sample": 1, "settle_calls": 1}
        assert len(ask("block", begun_s + 60, samples=3, **block)) == 3
        with pytest.raises(WorkerError, match="did not answer"):
            ask("block", begun_s + 1, samples=10**8, **block)
        assert time.monotonic() - begun_s < 10


def test_passes_are_planned_for_the_rows_that_are_still_to_come(monkeypatch):
    seen: list[list[str]] = []
    probed: list[dict[str, object]] = []

    def leave_out(_: TimeBudget, to_come, __) -> list[str]:
        seen.append([one.name for one in to_come])
        return ["energy"]

    monkeypatch.setattr(TimeBudget, "leave_out", leave_out)
    monkeypatch.setattr(FinishedRow, "run_probes", lambda _, **given: probed.append(given))
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    options = Options.of("quick", replicas=1, budget_s=0.5, passes=("energy", "wall"))
    with OpenRows.of(workload, None) as opened:
        opened.open(rows("eager", "half"), time.monotonic() + 60)
        opened.measure(["eager", "half"], "eager", options)
    assert seen == [["eager", "half"], ["half"]]
    assert [one["leave_out"] for one in probed] == [["energy"]] * 2
    assert [one["passes"] for one in probed] == [("energy", "wall")] * 2


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_calls_of_the_first_row_decide_whether_all_share_cores(is_busy, monkeypatch):
    monkeypatch.setattr(cpu_affinity, "is_multithreaded", lambda _: is_busy)
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    options = Options.of("quick", replicas=1, budget_s=0.2, evidence=False, passes=False)
    with OpenRows.of(workload, None) as opened:
        opened.system = attrs.evolve(opened.system, default_shared_cores=lambda _: 1)
        opened.begin(rows("half"), {})  # on the other cores
        opened.open(rows("eager"), time.monotonic() + 60)
        monkeypatch.setattr(cpu_affinity, "is_multithreaded", lambda _: not is_busy)
        opened.open(rows("half"), time.monotonic() + 60)
        expected = os.sched_getaffinity(0) if is_busy else set(cpu_affinity.reserved_cores(1))
        for (prepared,) in opened.replicas.values():
            assert os.sched_getaffinity(prepared.worker.pid) == expected
        found = opened.measure(["eager", "half"], "eager", options)
        assert found.shared_cores == (None if is_busy else 1)


def test_rows_that_are_being_built_use_other_cores_than_those_that_are_measured():
    workload = resolve(nn.Linear(8, 8), torch.ones(2, 8), device="cpu", seed=0)
    mine = os.sched_getaffinity(0)
    with OpenRows.of(workload, None) as opened:
        opened.system = attrs.evolve(opened.system, default_shared_cores=lambda _: 1)
        opened.open(rows("eager"), time.monotonic() + 60)
        opened.begin(rows("half"), {})
        (measured,) = os.sched_getaffinity(opened.replicas["eager"][0].worker.pid)
        opened.wait_ready(time.monotonic() + 60)
        assert os.sched_getaffinity(opened._begun["half"].pid) == mine - {measured}
