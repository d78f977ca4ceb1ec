"""Which batches are read from the user's data, and what identifies them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from precisionbench.torchtools.from_paths import from_paths
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.tuning import batches as batches_module
from precisionbench.workflows.tuning.batches import batches_of
from precisionbench.workflows.tuning.keys import Keys
from precisionbench.workflows.tuning.metric import metric_judge

TARGET = {"device": "H200", "compute_capability": "", "architecture": "a", "weights": "w"}
WHERE = {
    **dict.fromkeys(["python", "torch", "cuda", "cudnn", "cpu_cores", "threads", "power_mode"]),
    "packages": {},
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that only stands still or is moved."""
    now = [0.0]
    monkeypatch.setattr(batches_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


class Loader:
    """Batches that take some seconds each, of a known number or without end."""

    def __init__(self, clock, seconds: float, count: int | None = None) -> None:
        self.clock, self.seconds, self.count, self.read = clock, seconds, count, 0

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("it has no end")
        return self.count

    def __iter__(self):
        numbers = itertools.count() if self.count is None else range(self.count)
        for number in numbers:
            self.clock[0] += self.seconds
            self.read += 1
            yield torch.full((4, 6), float(number))


@pytest.mark.parametrize(
    ("seconds", "budget_s", "expected"),
    [
        (0.1, 100.0, 101),  # a tenth of the budget
        (2.0, 100.0, 8),  # at least 8 batches
        (30.0, 100.0, 2),  # that take no more than half of the budget, but for 2 batches
        (300.0, 100.0, 2),
    ],
)
def test_endless_data_is_read_for_a_share_of_the_budget(clock, seconds, budget_s, expected):
    data = Loader(clock, seconds)
    found = batches_of(data, budget_s)
    assert len(found.found) == data.read == pytest.approx(expected, abs=1)
    assert found.note.startswith(f"reading of data ended after {data.read} batches, which took ")
    assert "of the budget of 100 s; a larger budget_s (--budget) uses more" in found.note


def test_the_note_says_how_many_batches_there_are(clock):
    assert "after 8 of 40 batches, " in batches_of(Loader(clock, 2.0, 40), 100.0).note
    assert batches_of(Loader(clock, 2.0, 8), 100.0).note == ""
    assert len(batches_of(Loader(clock, 0.1, 40), 100.0).found) == 40


def test_data_in_memory_is_used_whole(clock):
    data = [torch.ones(1)] * 20_000
    assert len(batches_of(data, 1e-9).found) == len(data)


def test_endless_data_that_is_fast_has_a_bound_of_its_own(clock, monkeypatch):
    monkeypatch.setattr(batches_module, "_MOST_BATCHES", 50)
    found = batches_of(Loader(clock, 0.0), 100.0)
    assert len(found.found) == 50
    assert found.note.endswith(
        "after 50 batches, the most that is read; give a list of batches to use more"
    )
    monkeypatch.setattr(batches_module, "_MOST_BYTES", 20 * 4 * 6 * 4)
    found = batches_of(Loader(clock, 0.0), 100.0)
    assert len(found.found) == 21
    assert "which hold 0.0 GB; give a list" in found.note


def test_a_generator_stays_where_reading_has_ended(clock):
    data = iter(Loader(clock, 2.0))
    count = len(batches_of(data, 100.0).found)
    assert float(next(data)[0, 0]) == count


def test_data_that_time_ends_has_the_same_key_however_many_are_read(clock):
    few, many = (batches_of(Loader(clock, seconds), 100.0) for seconds in (1.1, 0.5))
    assert len(few.found) != len(many.found)
    assert few.key == many.key
    larger = batches_of(Loader(clock, 0.5), 200.0)  # which uses more of the data
    assert larger.key != many.key


def test_the_keys_of_the_journal_do_not_depend_on_how_many_are_read_in_time(clock):
    given = Inputs((torch.ones(4, 6),))
    of_inputs = True, given, from_paths, 100.0
    judges = [
        metric_judge(print, Loader(clock, seconds), 0.1, *of_inputs) for seconds in (1.1, 0.5)
    ]
    place = SimpleNamespace(**TARGET), SimpleNamespace(**WHERE)
    workload = SimpleNamespace(inputs=given, info=SimpleNamespace(batch_size=1))
    few, many = (Keys.of(*place, judge, workload, "eager").base for judge in judges)
    assert judges[0].bound.batches != judges[1].bound.batches
    assert few == many


def test_every_batch_is_in_the_key_where_all_are_read(clock):
    one, other = Loader(clock, 0.0, 20), Loader(clock, 0.0, 21)
    assert batches_of(one, 100.0).key == batches_of([*one]).key != batches_of(other, 100.0).key


def test_no_more_batches_are_read_than_are_asked_for(clock):
    data = Loader(clock, 0.0)
    assert len(batches_of(data, most=8).found) == data.read == 8
