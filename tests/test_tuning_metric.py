"""A metric that fails, changes what it is given, or counts items of which few differ."""

from __future__ import annotations

import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.errors import WorkloadError
from precisionbench.results.tuning import FAILED, METRIC_FAILED, WITHIN, Trial
from precisionbench.torchtools.from_paths import from_paths
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.tuning import outcome
from precisionbench.workflows.tuning.journal import Journal
from precisionbench.workflows.tuning.metric import metric_judge

X = torch.ones(4, 6)
GIVEN = Inputs((), {"x": X})
LABELS = torch.tensor([0, 1, 2, 0])
RIGHT = {"": torch.eye(3)[LABELS]}
BROKEN = {"": torch.full((4, 3), math.nan)}


def right(count: int = 8) -> list[dict[str, torch.Tensor]]:
    return [{"": RIGHT[""].clone()} for _ in range(count)]


class Box:
    """An object of a user's class, with labels as a list."""

    def __init__(self) -> None:
        self.labels = [0, 1, 2, 0]


def batches(count: int = 8) -> list[dict[str, object]]:
    labels = {"labels": LABELS.clone(), "array": LABELS.numpy().copy(), "set": {0, 1}}
    return [{"x": X, **labels, "nested": [LABELS.clone()]} for _ in range(count)]


def judge_of(metric, data=None, drop=0.2):
    data = batches() if data is None else data
    judge = metric_judge(metric, data, drop, True, GIVEN, from_paths)
    return judge.with_reference(right(len(data)), "eager")


def share(outputs, labels) -> float:
    return float((outputs.argmax(1) == torch.as_tensor(labels)).float().mean())


def pops(outputs, batch):
    return share(outputs, batch.pop("labels"))


def adds(outputs, batch):
    batch["nested"].append(0)
    batch["set"].clear()
    assert len(batch["nested"]) == 2
    return share(outputs, batch["labels"].sub_(1).add(1))


def writes(outputs, batch):
    found = share(outputs, batch["array"])
    batch["array"][:] = 5
    outputs.zero_()
    return found


@pytest.mark.parametrize("metric", [pops, adds, writes])
def test_a_metric_may_change_what_it_is_given(metric):
    data = batches()
    judge = judge_of(metric, data)
    for _ in range(2):
        assert judge.accuracy(right()).metric == 1.0
    assert all(torch.equal(one["labels"], LABELS) and len(one["nested"]) == 1 for one in data)
    assert all(np.array_equal(one["array"], LABELS.numpy()) for one in data)


def test_a_metric_that_changes_an_object_of_the_batch_is_refused():
    def changes(outputs, batch):
        found = share(outputs, batch["box"].labels)
        batch["box"].labels[:] = [5] * 4
        return found

    data = [{"x": X, "box": Box()} for _ in range(8)]
    with pytest.raises(WorkloadError, match="changes is 1 and then 0 for the same outputs and bat"):
        judge_of(changes, data)


def test_a_metric_that_depends_on_earlier_calls_is_refused():
    calls = []

    def counts(*_):
        calls.append(0)
        return len(calls)

    with pytest.raises(WorkloadError, match="counts is 1 and then 2 .* depend on no earlier call"):
        judge_of(counts)


def finite(outputs, batch):
    if outputs.isnan().any():
        raise ValueError("input contains NaN")
    return share(outputs, batch["labels"])


def test_a_metric_that_fails_for_a_configuration_only_is_tried_again(tmp_path):
    judge = judge_of(finite)
    with pytest.raises(WorkloadError) as failed:
        judge.accuracy([RIGHT, BROKEN])
    assert str(failed.value).startswith(
        "the metric finite failed for its outputs for batch 1 of data (ValueError: input contains "
        "NaN), and not for those of eager; "
    )
    assert isinstance(failed.value.__cause__, ValueError)
    trial = Trial("half", FAILED, str(failed.value))
    assert trial.may_pass
    journal = Journal.opened(tmp_path / "j.jsonl", str)
    journal.keep(trial)
    assert Journal.opened(tmp_path / "j.jsonl", str).known("half") is None


def test_configurations_for_whose_outputs_the_metric_failed_are_noted():
    reasons = {"half": f"the metric finite {METRIC_FAILED} for batch 1", "compile": "no compiler"}
    trials = {spec: Trial(spec, FAILED, reason) for spec, reason in reasons.items()}
    (note,) = outcome._on_metric(SimpleNamespace(trials=trials))
    assert note.startswith("the metric failed for the outputs of half, and not for those of the")


def test_a_model_without_tensors_in_its_output_is_refused_with_a_metric_too():
    judge = metric_judge(lambda *_: 1.0, batches(), 0.1, True, GIVEN, from_paths)
    with pytest.raises(
        WorkloadError, match="the output of eager holds no tensor; .* let the model"
    ):
        judge.with_reference([{}] * 8, "eager")


def test_equal_numbers_that_count_no_items_have_no_spread():
    found = judge_of(lambda *_: 0.123, drop=1e-3).accuracy([RIGHT] * 8)
    assert (found.verdict, found.loss.high) == (WITHIN, 0.0)


# The whole search


def slow_batches():
    for number in itertools.count():
        time.sleep(0.3)
        x = torch.randn(16, 32, generator=torch.Generator().manual_seed(number))
        yield x, torch.zeros(16)


@pytest.mark.slow
def test_endless_data_leaves_time_and_the_next_run_goes_on(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    asked = {
        "metric": lambda outputs, batch: float((outputs - outputs.round(decimals=2)).abs().max()),
        "drop": 1e-9,  # which no bfloat16 is within
        "higher_is_better": False,
        "include": ["half:dtype=bfloat16"],
        "budget_s": 25,
        "device": "cpu",
        "journal": tmp_path / "journal.jsonl",
    }
    begun_s = time.monotonic()
    first, second = (
        pb.tune(model, next(slow_batches())[0], data=slow_batches(), **asked) for _ in range(2)
    )
    assert time.monotonic() - begun_s < 60
    assert any("reading of data ended after" in note for note in first.data.notes)
    assert "nothing has changed since" in str(second.data.notes) or any(
        trial.from_journal for trial in second.trials
    )
