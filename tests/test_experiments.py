"""Experiments: which rows they change, which ones are chosen, and their results."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.cli import main
from precisionbench.diagnosis.causes import CAUSES
from precisionbench.diagnosis.findings import ExperimentResult, Finding, FindingStatus
from precisionbench.errors import MeasurementError, PreparationError, SpecError, WorkloadError
from precisionbench.measure.options import Options
from precisionbench.model.workload import resolve
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.statistics import Interval
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows import experiments, model_edits
from precisionbench.workflows.experiment_costs import Costs
from precisionbench.workflows.experiment_runs import (
    OPTIONS,
    backends_of,
    in_new_workers,
    run_experiments,
)
from test_gap import row, run


class Narrow(nn.Module):
    """Channels of 10 and 50, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(10, 50, 3, padding=1), nn.BatchNorm2d(50)
        self.b, self.head = nn.Conv2d(50, 50, 3), nn.Linear(50, 5)

    def forward(self, x):
        return self.head(self.b(self.norm(self.a(x))).mean((2, 3)))


X = torch.randn(4, 10, 16, 16)


def test_a_padded_model_has_the_same_output():
    model = Narrow().eval()
    before = model(X)
    changed, _ = model_edits.pad_channels(model, Inputs((X,), {}))
    torch.testing.assert_close(changed(X), before, rtol=1e-4, atol=1e-5)


def test_padding_makes_every_size_a_multiple_of_eight():
    changed, _ = model_edits.pad_channels(Narrow().eval(), Inputs((X,), {}))
    for part in changed.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            assert not any(size % 8 for size in part.weight.shape[:2])


def test_a_model_with_nothing_to_pad_says_so():
    with pytest.raises(PreparationError, match="the model has no"):
        model_edits.pad_channels(nn.Sequential(nn.Linear(8, 8)), Inputs((torch.ones(1, 8),), {}))


def test_random_inputs_leave_whole_numbers_alone():
    inputs = Inputs((torch.zeros(3), torch.zeros(3, dtype=torch.int64)), {})
    _, changed = model_edits.randomize_inputs(nn.Identity(), inputs)
    assert changed.args[0].any()
    assert not changed.args[1].any()


def finding(cause: str, gain: float | None = 1.5, row: str = "eager") -> Finding:
    factor = None if gain is None else Interval(gain, 1.0, gain)
    experiment = next(c.experiment for c in CAUSES if c.name == cause)
    return Finding(
        cause, row, "title", FindingStatus.SUSPECTED, factor, (), "remedy", proposed=experiment
    )


BACKENDS = {"eager": Half(), "half": Half()}
NOTHING = comparison_data()


def test_the_largest_expected_gain_comes_first_within_the_budget():
    found = [finding("kernel-choice", 1.1), finding("layout-conversions", 1.9)]
    plans, *_ = experiments.plan_experiments(found, BACKENDS, "auto", 22.0)
    assert [plan.name for plan in plans] == ["channels-last"]
    plans, *_ = experiments.plan_experiments(found, BACKENDS, "auto", 100.0)
    assert [plan.name for plan in plans] == ["channels-last", "cudnn-benchmark"]


def test_findings_without_a_gain_are_tested_only_by_name():
    found = [finding("layout-conversions", 1.01)]
    assert experiments.plan_experiments(found, BACKENDS, "auto", 100.0)[:2] == ([], [])
    plans, *_ = experiments.plan_experiments(found, BACKENDS, ["channels-last"], 100.0)
    assert [plan.name for plan in plans] == ["channels-last"]


def test_a_row_without_its_backend_fails_with_the_reason():
    _, (trial,), _ = experiments.plan_experiments(
        [finding("layout-conversions", row="mine")], BACKENDS, "auto", 9.0
    )
    assert "not available" in trial.failure


def test_notes_list_the_experiments_made_and_left_out():
    found = [finding("kernel-choice", 1.1), finding("layout-conversions", 1.9)]
    *_, notes = experiments.plan_experiments(found, BACKENDS, "auto", 22.0)
    assert notes[0] == "experiments run: channels-last (eager)"
    assert notes[1].startswith("experiments left out to save time: cudnn-benchmark (eager)")
    *_, notes = experiments.plan_experiments([], BACKENDS, ["channels-last"], 9.0)
    assert notes == ["experiments not run, because no suspected finding needs them: channels-last"]
    *_, notes = experiments.plan_experiments([], BACKENDS, "auto", 9.0)
    assert notes == ["no experiments run: no suspected finding needs one"]


@pytest.mark.parametrize(
    ("workload", "sentence"),
    [
        ((nn.Linear(64, 10), torch.rand(8, 64)), "'Linear' in its parameters: 650 instead of 4160"),
        ((nn.Linear(64, 64), torch.rand(3, 64)), "'Linear' in its batch size: 3 instead of 8"),
        ((nn.Linear(64, 64), torch.rand(8, 2, 64)), "in its inputs: 8x2x64 float32"),
        ("nope:nothing", "nope"),
    ],
)
def test_a_workload_that_differs_from_the_measured_one_is_refused(zeros, workload, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        pb.diagnose(zeros, workload, "auto")


@pytest.mark.parametrize("wanted", [3, ["nonsense"]])
def test_invalid_names_of_experiments_are_refused(zeros, wanted):
    with pytest.raises(SpecError):
        pb.diagnose(zeros, (nn.Linear(64, 64), torch.rand(8, 64)), wanted)


def test_a_workload_tuple_that_is_not_a_pair_is_refused(zeros):
    with pytest.raises(SpecError, match="a tuple of 1"):
        pb.diagnose(zeros, (nn.Linear(64, 64),), "auto")


def test_none_may_be_given_in_a_list(zeros):
    assert pb.diagnose(zeros, experiments=["none"]) == pb.diagnose(zeros)


def test_an_unknown_experiment_is_refused_with_the_known_ones():
    with pytest.raises(SpecError, match="channels-last"):
        experiments.plan_experiments([], {}, ["chanels-last"], 9.0)


def test_a_row_that_has_the_change_already_is_not_measured():
    row = {"half": Half(memory_format="channels_last")}
    plans, (trial,), _ = experiments.plan_experiments(
        [finding("layout-conversions", row="half")], row, "auto", 100.0
    )
    assert plans == []
    assert trial.failure == "the row already has this change"


def test_every_experiment_that_a_cause_proposes_exists():
    named = {name for one in CAUSES for name in (one.experiment, *one.alternatives) if name}
    assert named <= set(experiments.EXPERIMENTS)


def test_an_experiment_that_takes_longer_than_the_budget_is_left_out():
    compiled = [finding("memory-bound")]
    plans, _, (note,) = experiments.plan_experiments(
        compiled, BACKENDS, "auto", 10.0, costs=Costs("cuda", is_kept=True)
    )
    assert plans == []
    assert note.startswith(
        "experiments left out to save time: compiled (eager); all together take about"
    )
    assert note.endswith("or --experiments compiled")
    plans, *_ = experiments.plan_experiments(compiled, BACKENDS, ["compiled"], 0.0)
    assert [plan.name for plan in plans] == ["compiled"]


def test_compiling_fits_in_the_time_where_a_row_was_compiled_quickly():
    data = run(row("eager", 1e-3), row("compile:dtype=bfloat16", 1e-3, dtype="bfloat16"))
    costs = attrs.evolve(Costs.of(data, is_kept=True), device_type="cuda")
    assert costs.known_build_s["compile"] == pytest.approx(1.1)
    plans, *_ = experiments.plan_experiments(
        [finding("memory-bound")], BACKENDS, "auto", 10.0, costs=costs
    )
    assert [plan.name for plan in plans] == ["compiled"]


def test_kept_workers_leave_time_for_more_experiments():
    def chosen(is_kept: bool) -> int:
        found = [
            finding("layout-conversions", 1.9, row="half"),
            finding("launch-bound", 1.5),
            finding("kernel-choice", 1.4, row="half"),
        ]
        rows = {"eager": Eager(), "half": Half()}
        costs = Costs("cuda", is_kept, {"eager": 0.5, "half": 0.5})
        return len(experiments.plan_experiments(found, rows, "auto", 10.0, costs=costs)[0])

    assert chosen(is_kept=True) == 3
    assert chosen(is_kept=False) < 3


def test_a_larger_batch_needs_a_known_batch_size():
    asked = [attrs.evolve(finding("launch-bound"), alternatives=("larger-batch",))]
    _, (trial,), _ = experiments.plan_experiments(asked, {"eager": Half()}, ["larger-batch"], 9.0)
    assert "the batch size is not known" in trial.failure


def test_a_row_without_a_compiled_form_fails_with_the_reason():
    plans, (trial,), _ = experiments.plan_experiments(
        [finding("memory-bound")], {"eager": Half(fp32_layers="head")}, "auto", 100.0
    )
    assert plans == []
    assert "no equivalent compile row" in trial.failure


# --- as they are measured -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trials() -> list[ExperimentResult]:
    """Three experiments on one row, measured together; the model has no batch norm to fold."""
    rows = {"eager": Half(dtype="bfloat16")}
    suspected = [finding("memory-bound"), finding("layout-conversions")]
    plans, *_ = experiments.plan_experiments(suspected, rows, "auto", 100.0)
    folding = [attrs.evolve(finding("memory-bound"), alternatives=("folded-batch-norm",))]
    more, *_ = experiments.plan_experiments(folding, rows, ["folded-batch-norm"], 100.0)
    workload = resolve(nn.Conv2d(3, 8, 3), torch.rand(2, 3, 8, 8), device="cpu")
    options = attrs.evolve(OPTIONS, replicas=1, budget_s=0.2)
    measure = in_new_workers(workload)
    return run_experiments([*plans, *more], NOTHING, measure, options=options)


def test_experiments_are_measured_beside_the_unchanged_row(trials):
    measured = trials[:2]
    assert [trial.experiment for trial in measured] == ["compiled", "channels-last"]
    assert all(trial.speedup and trial.speedup.low > 0 for trial in measured)


def test_an_experiment_that_cannot_run_has_the_reason(trials):
    trial = trials[2]
    assert trial.speedup is None
    assert "no batch norm" in trial.failure


def run_as(plans: list[Any], *rows: BackendResult) -> Any:
    """Run experiments that measure these rows at once: the trials, and the options asked for."""
    asked: list[Any] = []

    def measure(_: object, options: Options, __: object) -> ComparisonData:
        asked.append(options)
        return run(*rows)

    trials = run_experiments(plans, NOTHING, measure)
    (options,) = asked
    return trials, options


def test_experiments_measure_nothing_but_times():
    plans, *_ = experiments.plan_experiments([finding("memory-bound")], BACKENDS, "auto", 100.0)
    rows = row("half", 2e-3), row("compile:dtype=float16", 1e-3)
    (trial,), options = run_as(plans, *rows)
    assert (options.passes, options.evidence) == (False, False)
    assert trial.speedup.value == pytest.approx(2)


def test_experiments_that_cannot_be_measured_have_the_reason():
    def measure(*_: object) -> ComparisonData:
        raise MeasurementError("enough")

    plans, *_ = experiments.plan_experiments([finding("memory-bound")], BACKENDS, "auto", 100.0)
    (trial,) = run_experiments(plans, NOTHING, measure)
    assert (trial.speedup, trial.failure) == (None, "enough")


def test_a_larger_batch_is_compared_by_items():
    asked = [attrs.evolve(finding("launch-bound"), alternatives=("larger-batch",))]
    plans, *_ = experiments.plan_experiments(
        asked, {"eager": Half(dtype="bfloat16")}, ["larger-batch"], 9.0, 4
    )
    assert plans[0].changed.batch_size == 32
    of_same_latency = (
        row("half:dtype=bfloat16", 1e-3, 4),
        row("half:dtype=bfloat16,batch_size=32", 1e-3, 32),
    )
    (trial,), _ = run_as(plans, *of_same_latency)
    assert trial.speedup.low > 2
    assert trial.speedup.value == pytest.approx(8)


def test_a_row_of_a_patched_process_is_measured_in_a_fresh_one():
    plans, *_ = experiments.plan_experiments(
        [finding("patched-functions")], backends_of(pb.Comparison(NOTHING)), "auto", 100.0
    )
    (trial,), options = run_as(plans, row("eager#fresh", 1e-3))
    assert options.launcher == "process"
    assert trial.experiment == "fresh-process"
    assert trial.speedup.low > 2  # 10 ms before


# --- as users call them ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zeros():
    return pb.compare(
        nn.Linear(64, 64), torch.zeros(8, 64), backends=["half:dtype=bfloat16"], device="cpu",
        launcher="inline", budget_s=8, effort="quick", evidence=True,
    )  # fmt: skip


def test_a_diagnosis_is_printed_as_a_text(zeros):
    text = str(pb.diagnose(zeros))
    assert "The inputs are zeros eager: suspected" in " ".join(text.split())
    assert "Ten questions" in text


def test_experiments_without_a_model_are_refused(zeros):
    with pytest.raises(SpecError, match="experiments need the model"):
        pb.diagnose(zeros, experiments="auto")


@pytest.mark.slow  # measures experiments
def test_diagnose_runs_experiments_on_the_model(zeros):
    found = pb.diagnose(zeros, workload=(nn.Linear(64, 64), torch.zeros(8, 64)), experiments="auto")
    (constant,) = (f for f in found.findings if f.cause == "constant-inputs")
    assert constant.experiment == "random-inputs"


def test_a_saved_result_is_explained_on_the_command_line(zeros, tmp_path):
    file = tmp_path / "r.json"
    zeros.save(file)
    done = CliRunner().invoke(main, ["explain", str(file)])
    assert done.exit_code == 0
    assert "Ten questions" in done.output
    done = CliRunner().invoke(main, ["explain", str(file), "--json"])
    document = json.loads(done.output)
    assert document["format"] == "precisionbench.diagnosis"
    assert document["findings"][0]["cause"] == "constant-inputs"


def test_explain_without_evidence_is_refused():
    done = CliRunner().invoke(main, ["compare", "a.b:c", "--explain", "--no-evidence"])
    assert done.exit_code == 2
    assert "requires profiling" in done.output
