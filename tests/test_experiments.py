"""Experiments: what is changed, what is chosen, and what becomes of it."""

from __future__ import annotations

import json
import time

import attrs
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import precisionbench as pb
from precisionbench.backends.half import Half
from precisionbench.cli import main
from precisionbench.diagnosis.causes import CAUSES
from precisionbench.diagnosis.findings import Finding, Status
from precisionbench.errors import MeasurementError, PreparationError, SpecError, WorkloadError
from precisionbench.statistics import Interval
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows import experiments, model_edits
from test_storage import comparison_data


class Narrow(nn.Module):
    """Channels of 10 and 50, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(10, 50, 3, padding=1), nn.BatchNorm2d(50)
        self.b, self.head = nn.Conv2d(50, 50, 3), nn.Linear(50, 5)

    def forward(self, x):
        return self.head(self.b(self.norm(self.a(x))).mean((2, 3)))


X = torch.randn(4, 10, 16, 16)


def test_a_padded_model_computes_the_same():
    model = Narrow().eval()
    before = model(X)
    changed, _ = model_edits.padded_channels(model, Inputs((X,), {}))
    torch.testing.assert_close(changed(X), before, rtol=1e-4, atol=1e-5)


def test_padding_makes_every_size_a_multiple_of_eight():
    changed, _ = model_edits.padded_channels(Narrow().eval(), Inputs((X,), {}))
    for part in changed.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            assert not any(size % 8 for size in part.weight.shape[:2])


def test_a_model_with_nothing_to_pad_says_so():
    with pytest.raises(PreparationError, match="the model has no"):
        model_edits.padded_channels(nn.Sequential(nn.Linear(8, 8)), Inputs((torch.ones(1, 8),), {}))


def test_random_inputs_leave_whole_numbers_alone():
    inputs = Inputs((torch.zeros(3), torch.zeros(3, dtype=torch.int64)), {})
    _, changed = model_edits.random_inputs(nn.Identity(), inputs)
    assert changed.args[0].any()
    assert not changed.args[1].any()


def finding(cause: str, gain: float | None = 1.5, row: str = "eager") -> Finding:
    factor = None if gain is None else Interval(gain, 1.0, gain)
    experiment = next(c.experiment for c in CAUSES if c.name == cause)
    return Finding(cause, row, "title", Status.SUSPECTED, factor, (), "remedy", proposed=experiment)


BACKENDS = {"eager": Half(), "half": Half()}
NOTHING = pb.Comparison(comparison_data())


def test_what_promises_most_is_tried_first_and_as_much_as_the_time_allows():
    found = [finding("kernel-choice", 1.1), finding("layout-conversions", 1.9)]
    plans, *_ = experiments.planned(found, BACKENDS, "auto", 1.0)
    assert [plan.name for plan in plans] == ["channels-last"]
    plans, *_ = experiments.planned(found, BACKENDS, "auto", 100.0)
    assert [plan.name for plan in plans] == ["channels-last", "cudnn-benchmark"]


def test_what_promises_nothing_is_tried_only_where_it_is_asked_for():
    found = [finding("layout-conversions", 1.01)]
    assert experiments.planned(found, BACKENDS, "auto", 100.0)[:2] == ([], [])
    plans, *_ = experiments.planned(found, BACKENDS, ["channels-last"], 100.0)
    assert [plan.name for plan in plans] == ["channels-last"]


def test_a_row_whose_backend_is_gone_says_so():
    _, (trial,), _ = experiments.planned(
        [finding("layout-conversions", row="mine")], BACKENDS, "auto", 9.0
    )
    assert "not at hand" in trial.failure


def test_what_was_made_and_what_was_left_out_is_told():
    found = [finding("kernel-choice", 1.1), finding("layout-conversions", 1.9)]
    *_, notes = experiments.planned(found, BACKENDS, "auto", 1.0)
    assert notes[0] == "experiments made: channels-last (eager)"
    assert notes[1].startswith("left out for lack of time: cudnn-benchmark (eager)")
    *_, notes = experiments.planned([], BACKENDS, ["channels-last"], 9.0)
    assert notes == ["no suspected finding asks for channels-last, so it was not made"]
    *_, notes = experiments.planned([], BACKENDS, "auto", 9.0)
    assert notes == ["no suspected finding asks for an experiment, so none was made"]


@pytest.mark.parametrize(
    ("workload", "sentence"),
    [
        ((nn.Linear(64, 10), torch.rand(8, 64)), "its parameters 650, where 'Linear' had 4160"),
        ((nn.Linear(64, 64), torch.rand(3, 64)), "its batch size 3, where 'Linear' had 8"),
        ((nn.Linear(64, 64), torch.rand(8, 2, 64)), "its inputs 8x2x64 float32"),
        ("nope:nothing", "nope"),
    ],
)
def test_another_model_than_was_measured_is_refused(zeros, workload, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        pb.diagnose(zeros, workload, "auto")


@pytest.mark.parametrize("wanted", [3, ["nonsense"]])
def test_experiments_that_make_no_sense_are_refused(zeros, wanted):
    with pytest.raises(SpecError):
        pb.diagnose(zeros, (nn.Linear(64, 64), torch.rand(8, 64)), wanted)


def test_a_workload_that_is_no_pair_is_refused(zeros):
    with pytest.raises(SpecError, match="a tuple of 1"):
        pb.diagnose(zeros, (nn.Linear(64, 64),), "auto")


def test_words_may_stand_in_a_list(zeros):
    assert pb.diagnose(zeros, experiments=["none"]) == pb.diagnose(zeros)


def test_an_unknown_experiment_is_refused_with_those_there_are():
    with pytest.raises(SpecError, match="channels-last"):
        experiments.planned([], {}, ["chanels-last"], 9.0)


def test_a_row_that_is_changed_already_is_not_measured_against_itself():
    row = {"half": Half(memory_format="channels_last")}
    plans, (trial,), _ = experiments.planned(
        [finding("layout-conversions", row="half")], row, "auto", 100.0
    )
    assert plans == []
    assert trial.failure == "the row is so already"


def test_every_experiment_of_a_cause_exists():
    named = {name for one in CAUSES for name in (one.experiment, *one.alternatives) if name}
    assert named <= set(experiments.EXPERIMENTS)


def test_experiments_are_measured_beside_the_row_as_it_is():
    found = [finding("memory-bound"), finding("layout-conversions")]
    plans, *_ = experiments.planned(found, {"eager": Half(dtype="bfloat16")}, "auto", 100.0)
    trials = experiments.made(plans, NOTHING, Narrow(), X, device="cpu", seed=0)
    assert [trial.experiment for trial in trials] == ["compiled", "channels-last"]
    assert all(trial.speedup and trial.speedup.low > 0 for trial in trials)


def test_experiments_are_timed_and_nothing_else(monkeypatch):
    asked: dict[str, object] = {}

    def look(*_: object, **options: object) -> None:
        asked.update(options)
        raise MeasurementError("enough")

    monkeypatch.setattr(experiments.runner, "compare", look)
    plans, *_ = experiments.planned([finding("memory-bound")], BACKENDS, "auto", 100.0)
    experiments.made(plans, NOTHING, Narrow(), X)
    assert (asked["passes"], asked["evidence"]) == (False, False)


def test_at_least_one_experiment_is_made_whatever_the_time():
    plans, *_ = experiments.planned([finding("memory-bound")], BACKENDS, "auto", 0.0)
    assert len(plans) == 1


def test_an_experiment_that_cannot_run_is_a_trial_with_the_reason():
    asked = [attrs.evolve(finding("memory-bound"), alternatives=("folded-batch-norm",))]
    plans, *_ = experiments.planned(
        asked, {"eager": Half(dtype="bfloat16")}, ["folded-batch-norm"], 100.0
    )
    (trial,) = experiments.made(
        plans, NOTHING, nn.Linear(10, 8), torch.ones(4, 10), device="cpu", seed=0
    )
    assert trial.speedup is None
    assert "no batch norm" in trial.failure


def test_a_larger_batch_is_compared_by_items():
    asked = [attrs.evolve(finding("launch-bound"), alternatives=("larger-batch",))]
    plans, *_ = experiments.planned(
        asked, {"eager": Half(dtype="bfloat16")}, ["larger-batch"], 9.0, 4
    )
    assert plans[0].changed.batch_size == 32
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(40)))
    (trial,) = experiments.made(plans, NOTHING, model, torch.ones(4, 8), device="cpu", seed=0)
    assert trial.speedup.low > 2  # forty tiny calls take about as long for eight times the items


def test_where_no_batch_is_known_there_is_no_larger_one():
    asked = [attrs.evolve(finding("launch-bound"), alternatives=("larger-batch",))]
    _, (trial,), _ = experiments.planned(asked, {"eager": Half()}, ["larger-batch"], 9.0)
    assert "not known how many items" in trial.failure


def test_a_row_that_has_no_compiled_form_says_so():
    plans, (trial,), _ = experiments.planned(
        [finding("memory-bound")], {"eager": Half(fp32_layers="head")}, "auto", 100.0
    )
    assert plans == []
    assert "no compiled row like this one" in trial.failure


# --- as people call it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zeros():
    return pb.compare(
        nn.Linear(64, 64), torch.zeros(8, 64), backends=["half:dtype=bfloat16"], device="cpu",
        launcher="inline", budget_s=1,
    )  # fmt: skip


def test_a_diagnosis_is_printed_as_a_text(zeros):
    text = str(pb.diagnose(zeros))
    assert "eager: the inputs are zeros, suspected" in " ".join(text.split())
    assert "Ten questions" in text


def test_experiments_without_a_model_are_refused(zeros):
    with pytest.raises(SpecError, match="experiments need the model"):
        pb.diagnose(zeros, experiments="auto")


def test_with_the_model_experiments_are_made(zeros):
    found = pb.diagnose(zeros, workload=(nn.Linear(64, 64), torch.zeros(8, 64)), experiments="auto")
    (said,) = (f for f in found.findings if f.cause == "constant-inputs")
    assert said.experiment == "random-inputs"


def test_a_saved_result_is_explained_on_the_command_line(zeros, tmp_path):
    file = tmp_path / "r.json"
    zeros.save(file)
    shown = CliRunner().invoke(main, ["explain", str(file)])
    assert shown.exit_code == 0
    assert "Ten questions" in shown.output
    told = CliRunner().invoke(main, ["explain", str(file), "--json"])
    document = json.loads(told.output)
    assert document["format"] == "precisionbench.diagnosis"
    assert document["findings"][0]["cause"] == "constant-inputs"


def test_explain_without_evidence_is_refused():
    shown = CliRunner().invoke(main, ["compare", "a.b:c", "--explain", "--no-evidence"])
    assert shown.exit_code == 2
    assert "needs the evidence" in shown.output


def test_a_row_of_a_patched_process_is_measured_in_a_fresh_one():
    model, x = nn.Linear(64, 64), torch.rand(8, 64)
    slow = pb.compare(
        Slowed(model), x, backends=["eager"], device="cpu", launcher="inline", budget_s=1
    )
    plans, *_ = experiments.planned(
        [finding("patched-functions")], experiments.backends_of(slow), "auto", 100.0
    )
    (trial,) = experiments.made(plans, slow, model, x, device="cpu", seed=0)
    assert trial.experiment == "fresh-process"
    assert trial.speedup.low > 2  # it is another model here, and fast


class Slowed(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        time.sleep(0.01)
        return self.part(x)
