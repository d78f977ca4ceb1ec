"""Experiments that are made while the workers of a comparison still run."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.cli import main
from precisionbench.diagnosis.findings import MadeExperiments
from precisionbench.errors import MeasurementError, OutOfMemoryError, SpecError
from precisionbench.measure.compare import plan
from precisionbench.measure.finish import FinishedRow
from precisionbench.measure.kept import KeptWorkers, unspoiled
from precisionbench.measure.options import Options
from precisionbench.measure.replicas import CrowdedError
from precisionbench.measure.run import Run
from precisionbench.measure.time_budget import TimeBudget
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.probes.run_all import NO_TIME
from precisionbench.results import Passes
from precisionbench.results.progress import Progress
from precisionbench.workflows.experiment_runs import OPTIONS
from test_fork_server import has_ended

ROUNDS = attrs.evolve(OPTIONS, budget_s=0.2)
SHORT: dict[str, Any] = {
    "effort": "quick", "replicas": 2, "evidence": False, "passes": False, "budget_s": 0.4
}  # fmt: skip
# Few rounds, and time for the profile on a busy machine, too.
WITH_EVIDENCE: dict[str, Any] = {"evidence": True, "budget_s": 60.0}


def compare(experiments: Any = None, **options: Any) -> pb.Comparison:
    """Two rows of a small model whose inputs are zeros, which one experiment tests."""
    known = {**SHORT, **options}
    if known.get("launcher") == "inline":
        del known["replicas"]
    model, zeros = nn.Linear(64, 64), torch.zeros(8, 64)
    return pb.compare(
        model, zeros, backends=["eager", "eager"], device="cpu", experiments=experiments, **known
    )


@pytest.fixture(scope="module")
def with_experiments() -> tuple[pb.Comparison, list[Progress]]:
    """A comparison with its experiments, and the progress of both."""
    seen: list[Progress] = []
    return compare(pb.Experiments("auto"), on_progress=seen.append, **WITH_EVIDENCE), seen


def test_experiments_start_workers_for_their_changed_rows_only(with_experiments):
    _, seen = with_experiments
    started = {one.phase: one.total for one in seen if one.stage == "starting"}
    assert started == {"": 4, "experiments": 2}


def test_a_diagnosis_has_the_results_of_experiments_that_were_made_with_the_comparison(
    with_experiments,
):
    comparison, _ = with_experiments
    found = pb.diagnose(comparison)
    (constant,) = (f for f in found.findings if f.cause == "constant-inputs")
    assert constant.experiment == "random-inputs"
    assert "experiments run: random-inputs (eager)" in found.notes


def test_the_rows_are_as_complete_as_without_experiments(with_experiments):
    comparison, _ = with_experiments
    assert [row.backend for row in comparison.results] == ["eager", "eager#2"]
    assert all(row.agreement is not None for row in comparison.results)
    assert not any("after the measurement" in w for r in comparison.results for w in r.warnings)


def test_an_unknown_experiment_is_refused_before_anything_is_measured():
    with pytest.raises(SpecError, match="channels-last"):
        pb.Experiments(["chanels-last"])
    with pytest.raises(SpecError, match="give 'auto'"):
        pb.Experiments(3)
    with pytest.raises(SpecError, match=r"give pb\.Experiments\('auto'\)"):
        compare("auto")


@pytest.mark.slow  # measures experiments
def test_no_worker_of_an_experiment_outlives_it():
    pids: list[int] = []

    def experimenter(_: object, __: object, measure: Any, ___: object) -> MadeExperiments:
        kept = of(measure)

        def noted(worker: Any, *arguments: Any) -> WorkerBackend:
            pids.append(worker.pid)
            return WorkerBackend(worker, *arguments)

        kept.run.system = attrs.evolve(kept.run.system, open_backend=noted)
        seen = measure(planned("eager", "half:dtype=bfloat16"), ROUNDS, None)
        assert [row.backend for row in seen.results] == ["eager", "half:dtype=bfloat16"]
        assert len(pids) == 2
        assert all(map(has_ended, pids))
        return MadeExperiments(notes=("all ended",))

    assert compare(experimenter).experiments == MadeExperiments(notes=("all ended",))


def planned(*specs: str) -> list[Any]:
    """Rows of these specs."""
    return plan(list(specs), specs[0])[0]


def of(measure: Any) -> KeptWorkers:
    """The kept workers that measure."""
    kept = measure.__self__
    assert isinstance(kept, KeptWorkers)
    return kept


# --- what may go wrong ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kept_worker_that_died_fails_its_experiment_and_nothing_else():
    found: list[Any] = []

    def experimenter(_: object, __: object, measure: Any, ___: object) -> MadeExperiments:
        eager = of(measure).run.finished["eager"][0]
        os.kill(eager.replicas[0].worker.pid, signal.SIGKILL)
        found.append(measure(planned("eager", "half:dtype=bfloat16"), ROUNDS, None))
        return MadeExperiments()

    comparison = compare(experimenter)
    (failure,) = found[0].failures
    assert failure.backend == "eager"
    assert "was ended by signal 9" in failure.reason
    assert [row.backend for row in found[0].results] == ["half:dtype=bfloat16"]
    assert comparison.failures == ()
    assert comparison["eager"].measurement.blocks


@pytest.mark.parametrize(
    ("launcher", "error", "note"),
    [
        ("inline", ZeroDivisionError("oops"), "failed (ZeroDivisionError: oops)"),
        ("inline", MeasurementError("it broke", "mend it"), "failed (it broke; mend it)"),
        ("inline", KeyboardInterrupt(), "were interrupted"),
        ("process", KeyboardInterrupt(), "were interrupted"),
    ],
)
def test_nothing_of_a_comparison_is_lost_when_its_experiments_fail(launcher, error, note):
    def experimenter(*_: object) -> MadeExperiments:
        raise error

    comparison = compare(experimenter, launcher=launcher)
    assert len(comparison.results) == 2
    assert pb.diagnose(comparison).notes[-1] == f"the experiments {note}"


def test_where_there_is_no_room_beside_kept_workers_new_ones_are_started():
    calls: list[bool] = []

    def experimenter(_: object, __: object, measure: Any, ___: object) -> MadeExperiments:
        calls.append(measure is not None)
        if measure is not None:
            raise CrowdedError(planned("half")[0])
        return MadeExperiments(notes=("made",))

    assert compare(experimenter).experiments == MadeExperiments(notes=("made",))
    assert calls == [True, False]


def test_a_row_that_runs_out_of_memory_beside_kept_workers_is_crowded():
    def experimenter(_: object, __: object, measure: Any, ___: object) -> MadeExperiments:
        kept = of(measure)

        def full(*_: object) -> None:
            raise OutOfMemoryError("no memory is left", "use less")

        kept.run.system = attrs.evolve(kept.run.system, open_backend=full)
        with pytest.raises(CrowdedError):
            measure(planned("eager", "half:dtype=bfloat16"), ROUNDS, None)
        return MadeExperiments(notes=("tried",))

    assert compare(experimenter).experiments == MadeExperiments(notes=("tried",))


def test_rows_that_were_measured_in_this_process_are_tested_in_new_ones():
    calls: list[object] = []

    def experimenter(*arguments: object) -> MadeExperiments:
        calls.append(arguments[2])
        return MadeExperiments()

    compare(experimenter, launcher="inline")
    assert calls == [None]


# --- which replicas are kept ----------------------------------------------------------------------


def finished(count: int, passes: Passes | None = None, ended_by: str = "target") -> FinishedRow:
    measurement = attrs.evolve(comparison_data().results[0].measurement, ended_by=ended_by)
    replicas: Any = [SimpleNamespace(number=number) for number in range(count)]
    return FinishedRow(measurement, replicas, 1e-3, [], passes or Passes())


@pytest.mark.parametrize(
    ("part", "device_type", "evidence", "numbers"),
    [
        (finished(3), "cuda", True, [0, 1]),  # the last was profiled
        (finished(3), "cuda", False, [0, 1, 2]),
        (finished(3, Passes(unknown={"graph": "not capturable: it waits"})), "cuda", True, [1]),
        (finished(3, Passes(unknown={"graph": NO_TIME})), "cuda", True, [0, 1]),
        (finished(1), "cuda", True, []),
        (finished(2), "cpu", True, [0, 1]),
        (finished(2, ended_by="failed"), "cpu", True, []),
    ],
)
def test_replicas_that_may_be_slower_than_before_are_not_kept(part, device_type, evidence, numbers):
    kept: list[Any] = list(unspoiled(part, device_type, Options(evidence=evidence)))
    assert [one.number for one in kept] == numbers


# --- on the command line --------------------------------------------------------------------------


@pytest.mark.slow  # measures experiments
def test_the_command_line_makes_the_experiments_of_explain_with_the_comparison(tmp_path):
    (tmp_path / "zeros_model.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(64, 64), torch.zeros(8, 64)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(
            main,
            [
                *("compare", "zeros_model:make", "-b", "eager", "--device", "cpu"),
                *("--quick", "--replicas", "2", "--explain", "--quiet"),
            ],
        )
    assert done.exit_code == 0, done.output
    assert "experiments run: random-inputs (eager)" in " ".join(done.output.split())


def test_an_unknown_experiment_on_the_command_line_is_refused_before_measuring():
    done = CliRunner().invoke(main, ["compare", "a.b:c", "--explain", "--experiments", "nope"])
    assert done.exit_code != 0
    assert "there is no experiment 'nope'" in done.output


def test_passes_for_which_the_budget_has_no_time_are_left_out():
    rows = [SimpleNamespace(name=str(number)) for number in range(4)]
    states = {row.name: SimpleNamespace(error=None, mean_call_s=0.1) for row in rows}
    for left_s, expected in ((10.0, []), (5.5, ["energy"]), (4.0, ["energy", "transfers"])):
        budget = TimeBudget(10.0, "cuda", profile=False, now=iter([0.0, 12.0 - left_s]).__next__)
        run = SimpleNamespace(time=budget, rows=rows)
        assert [*Run.leave_out_of(run, rows[0], states)] == expected
