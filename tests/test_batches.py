"""Rows of another batch beside the others: the option `batch_size` of every backend."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import precisionbench as pb
from precisionbench.analysis.speedups import per_item_ratio, speedups
from precisionbench.errors import SpecError, WorkloadError
from precisionbench.model.inputs import may_index_items, with_items
from precisionbench.model.workload import resolve
from precisionbench.results import ComparisonData
from precisionbench.statistics import Interval, Verdict
from precisionbench.torchtools.agreement import first_items
from precisionbench.torchtools.tensors import Inputs
from test_gap import EAGER, row, run

QUICK: dict[str, Any] = {
    "device": "cpu", "launcher": "inline", "budget_s": 0.1, "seed": 0, "evidence": False
}  # fmt: skip
# Few rounds, and time for the profile on a busy machine, too.
WITH_EVIDENCE: dict[str, Any] = {**QUICK, "effort": "quick", "budget_s": 8, "evidence": True}


class Recorder(nn.Module):
    """A model that keeps the arguments of its last call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Any, *more: Any, **named: Any) -> torch.Tensor:
        items = torch.stack([one.mean() for one in x])
        return self.weight * items[:, None]


# Arguments


@given(st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_items_are_the_first_ones_or_all_of_them_again(batch, count):
    if batch == count:
        return
    given = torch.arange(batch)[:, None]
    (found,) = with_items(Inputs((given,)), batch, count).args
    assert found[:, 0].tolist() == [place % batch for place in range(count)]
    assert given.tolist() == torch.arange(batch)[:, None].tolist(), "the user's own is as it was"


def test_named_and_nested_arguments_are_cut_alike():
    inputs = Inputs(
        kwargs={"ids": torch.rand(4, 7), "more": {"mask": torch.rand(4, 7)}, "scale": torch.rand(3)}
    )
    found = with_items(inputs, 4, 2).kwargs
    assert [found["ids"].shape[0], found["more"]["mask"].shape[0]] == [2, 2]
    assert found["scale"].shape == (3,)
    assert torch.equal(found["ids"], inputs.kwargs["ids"][:2])


@pytest.mark.parametrize("count", [2, 5])
def test_the_images_of_a_list_are_items_whatever_their_own_length(count):
    """Detection models take lists; images of 3 channels in a list of 3 must not be cut."""
    images = [torch.rand(3, 8, 8) for _ in range(3)]
    (found,) = with_items(Inputs((images,)), 3, count).args
    assert [tuple(image.shape) for image in found] == [(3, 8, 8)] * count
    assert all(found[n] is images[n % 3] for n in range(count))


def test_a_tensor_beside_a_list_of_items_is_cut_with_it():
    images = [torch.rand(3, 8, 8) for _ in range(3)]
    found = with_items(Inputs((images, torch.rand(3, 4))), 3, 2)
    assert len(found.args[0]) == 2
    assert found.args[0][0].shape == (3, 8, 8)
    assert found.args[1].shape == (2, 4)


def test_a_list_of_tensors_that_each_hold_the_batch_keeps_its_length():
    """Two feature maps of two items each."""
    maps = [torch.rand(2, 5), torch.rand(2, 6)]
    found = with_items(Inputs((torch.rand(2, 4), maps)), 2, 1)
    assert [tuple(one.shape) for one in found.args[1]] == [(1, 5), (1, 6)]


def test_texts_beside_a_batch_are_cut_with_it():
    found = with_items(Inputs((torch.rand(2, 4), ["a", "b"])), 2, 3)
    assert found.args[1] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("inputs", "batch", "said"),
    [
        (Inputs((torch.rand(5, 4),)), 3, "nothing in the inputs holds 3 items"),
        (Inputs((torch.rand(()),)), 0, "holds a known number of items"),
        (Inputs((pack_sequence([torch.rand(2, 3)] * 2),)), 2, "packed sequences"),
    ],
    ids=["no such length", "not known", "packed"],
)
def test_where_nothing_is_known_to_be_the_batch_it_is_refused(inputs, batch, said):
    with pytest.raises(WorkloadError, match=said):
        with_items(inputs, batch, 7)


def test_a_workload_of_another_batch_is_the_same_otherwise():
    workload = resolve(nn.Linear(4, 4), torch.rand(2, 4), device="cpu")
    larger = workload.with_batch(6)
    assert larger.info.batch_size == 6
    assert larger.make_inputs().args[0].shape == (6, 4)
    assert workload.make_inputs().args[0].shape == (2, 4)
    assert larger.info.model == workload.info.model


# Outputs


def test_outputs_are_compared_over_the_items_that_both_hold():
    output = {"logits": torch.rand(8, 5), "state": torch.rand(2, 8, 5), "loss": torch.rand(())}
    found = first_items(output, 8, 4)
    assert torch.equal(found["logits"], output["logits"][:4])
    assert found["state"] is output["state"]
    assert found["loss"] is output["loss"]


# The option


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many"])
def test_what_is_no_number_of_items_is_refused(value):
    with pytest.raises(SpecError, match="batch_size"):
        pb.compare(nn.Linear(4, 4), torch.rand(2, 4), backends=[f"eager:batch_size={value}"])


@pytest.fixture(scope="module")
def measured() -> pb.Comparison:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    rows = ["eager:batch_size=8", "eager:batch_size=2", "half:dtype=bfloat16,batch_size=8"]
    return pb.compare(model, torch.rand(4, 4), backends=rows, **WITH_EVIDENCE)


@pytest.mark.uncounted
def test_each_row_says_how_many_items_its_call_serves(measured):
    assert [one.batch_size for one in measured.results] == [4, 8, 2, 8]
    assert measured.data.workload.batch_size == 4
    for one in measured.results:
        assert one.throughput.value == pytest.approx(one.batch_size / one.latency.value)
    assert measured["eager:batch_size=8"].options["batch_size"] == 8
    assert measured["eager"].options["batch_size"] is None


def test_agreement_is_that_of_the_items_in_common(measured):
    for name, items in (("eager:batch_size=8", 4), ("eager:batch_size=2", 2)):
        (tensor,) = measured[name].agreement.tensors
        assert tensor.shape == (items, 3)
        assert tensor.relative_l2 < 1e-5
        assert measured[name].agreement.problems == ()
    (half,) = measured["half:dtype=bfloat16,batch_size=8"].agreement.tensors
    assert half.shape == (4, 3)
    assert 1e-5 < half.relative_l2 < 0.1


def test_evidence_and_the_diagnosis_do_not_mind(measured):
    for one in measured.results:
        assert one.evidence.unknown == {}
        assert one.evidence.errors, one.backend
        assert one.evidence.layers
    assert str(pb.diagnose(measured))


def test_the_result_is_saved_and_read_again(measured, tmp_path):
    measured.save(tmp_path / "r.json")
    assert pb.load(tmp_path / "r.json") == measured


def test_the_table_says_that_such_rows_are_compared_by_items(measured):
    for text in (str(measured), measured.to_markdown()):
        plain = " ".join(text.split())
        assert "eager:batch_size=8" in plain.replace("batch_size= 8", "batch_size=8")
        assert "of another batch are compared by items per second" in plain.lower()
    assert "another batch" not in str(pb.Comparison(run(EAGER, row("half", 1e-2))))


def test_reports_are_made_of_such_rows(measured, tmp_path):
    measured.to_html(tmp_path / "r.html")
    assert "eager:batch_size=8" in measured.to_csv()
    assert measured.under_rules("eager:batch_size=8")


def test_a_row_whose_batch_is_not_known_fails_with_a_sentence():
    """The first tensor has no dimension, so that nobody knows what an item is."""
    made = pb.compare(
        Recorder(), ([torch.rand(3)],), backends=["eager:batch_size=2"], batch_size=1, **QUICK
    )
    assert made["eager:batch_size=2"].batch_size == 2
    scalar = pb.compare(nn.Identity(), torch.tensor(1.0), backends=["eager:batch_size=2"], **QUICK)
    (failure,) = scalar.failures
    assert failure.backend == "eager:batch_size=2"
    assert failure.error == "WorkloadError"
    assert "so there is no batch to change" in failure.reason
    assert failure.remedy == "make inputs of that size"
    assert [one.backend for one in scalar.results] == ["eager"], "the others are measured"


def test_a_list_of_images_is_measured_at_another_batch():
    images = [torch.rand(2, 8, 8) for _ in range(2)]
    made = pb.compare(Recorder(), (images,), backends=["eager:batch_size=3"], **QUICK)
    assert made["eager:batch_size=3"].batch_size == 3
    (tensor,) = made["eager:batch_size=3"].agreement.tensors
    assert (tensor.shape, tensor.relative_l2) == ((2, 1), 0)


@pytest.mark.slow
def test_workers_measure_another_batch_beside_the_others():
    made = pb.compare(
        nn.Linear(4, 4),
        {"input": torch.rand(2, 4)},
        backends=["eager:batch_size=6"],
        device="cpu",
        replicas=1,
        budget_s=0.5,
        evidence=False,
    )
    assert made["eager:batch_size=6"].batch_size == 6
    assert made.data.schedule == "rounds"


# Speed-ups


def of_batches(schedule: str) -> ComparisonData:
    """Twice as many items in half as much more time."""
    return run(EAGER, row("eager:batch_size=200", 45e-3, batch=200), schedule=schedule)


@pytest.mark.parametrize("schedule", ["rounds", "restarts", "sequential"])
def test_speedups_are_of_items_per_second(schedule):
    data = of_batches(schedule)
    found = speedups(data)["eager:batch_size=200"]
    assert found.value == pytest.approx(2 * 30 / 45, rel=1e-3)
    assert found.low <= found.value <= found.high
    if schedule != "sequential":
        assert found.verdict is Verdict.FASTER
    direct = per_item_ratio(data, "eager", "eager:batch_size=200")
    assert direct.value == pytest.approx(found.value, rel=1e-6)
    back = per_item_ratio(data, "eager:batch_size=200", "eager")
    assert back.value == pytest.approx(1 / direct.value, rel=1e-6)
    assert per_item_ratio(data, "eager", "eager") == Interval(1.0, 1.0, 1.0)


def test_calls_are_compared_where_nobody_knows_what_they_serve():
    unknown = [attrs.evolve(one, batch_size=None) for one in of_batches("rounds").results]
    data = run(*unknown)
    assert speedups(data)["eager:batch_size=200"].value == pytest.approx(30 / 45, rel=1e-3)


@pytest.mark.parametrize(
    ("integers", "count", "expected"),
    [
        (torch.tensor([0, 5, 15]), 2, True),  # nodes of a graph of 16
        (torch.tensor([0, 8, 16]), 8, True),  # where its parts begin and end
        (torch.tensor([0, 5, 7]), 8, False),  # the items that stay
        (torch.tensor([0, 1, 1]), 1, False),  # a mask
        (torch.tensor([101, 2054, 102]), 2, False),  # tokens
        (torch.tensor([0.0, 5.0]), 2, False),
        (torch.tensor([], dtype=torch.int64), 2, False),
    ],
)
def test_integers_that_may_be_indices_of_items_are_known(integers, count, expected):
    inputs = Inputs((torch.rand(16, 4), integers))
    assert may_index_items(inputs, 16, count) is expected
