"""The journal of `tune`: nothing is tried twice, and nothing is reused that has changed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from made_up_tuning import tuning_data
from precisionbench.errors import OutputError, ResultFormatError
from precisionbench.model.workload import resolve
from precisionbench.results import json_format
from precisionbench.results.tuning import FAILED, NOT_FINISHED, SLOWER, WITHIN, Accuracy, Trial
from precisionbench.statistics import Interval
from precisionbench.system import environment
from precisionbench.workflows.tuning.accuracy import ErrorJudge
from precisionbench.workflows.tuning.journal import Journal, default_journal, key_of
from precisionbench.workflows.tuning.keys import Keys
from precisionbench.workflows.tuning.target import target_of

HALF = Trial(
    "half",
    SLOWER,
    "0.81x the speed of compile",
    Accuracy(Interval(1e-3, 9e-4, 1.1e-3), WITHIN),
    Interval(3.0, 2.9, 3.1),
    "screening",
    1.5,
)


def key(spec: str) -> str:
    return key_of("this model", spec)


def test_what_is_kept_is_known_to_the_next_run(tmp_path):
    Journal.opened(tmp_path / "j", key).keep(HALF)
    assert Journal.opened(tmp_path / "j", key).known("half") == HALF


def test_the_folder_of_a_new_journal_is_made(tmp_path):
    Journal.opened(tmp_path / "a" / "b" / "j", key).keep(HALF)
    assert Journal.opened(tmp_path / "a" / "b" / "j", key).known("half") == HALF


def test_what_has_changed_is_not_known(tmp_path):
    Journal.opened(tmp_path / "j", key).keep(HALF)
    changed = Journal.opened(tmp_path / "j", lambda spec: key_of("another model", spec))
    assert changed.known("half") is None


def test_the_newest_line_counts(tmp_path):
    journal = Journal.opened(tmp_path / "j", key)
    journal.keep(HALF)
    journal.keep(Trial("half", FAILED, "no memory"))
    assert Journal.opened(tmp_path / "j", key).known("half").outcome == FAILED


def test_what_was_given_up_is_not_kept(tmp_path):
    Journal.opened(tmp_path / "j", key).keep(Trial("half", NOT_FINISHED))
    assert Journal.opened(tmp_path / "j", key).known("half") is None


@pytest.mark.parametrize(
    ("reason", "may_pass"),
    [
        ("its worker process was ended by signal 9", True),
        ("it could not be prepared again for the final rounds (OSError: disk gone)", True),
        ("its worker process was ended by signal 11", False),
        ("no compiler was found", False),
    ],
)
def test_only_failures_of_the_moment_may_pass(reason, may_pass):
    assert Trial("half", FAILED, reason).may_pass is may_pass
    assert not Trial("half", SLOWER, reason).may_pass


def test_a_failure_that_may_pass_is_not_kept(tmp_path):
    killed = Trial("half", FAILED, "its worker process was ended by signal 9")
    Journal.opened(tmp_path / "j", key).keep(killed)
    assert Journal.opened(tmp_path / "j", key).known("half") is None


def test_a_line_that_was_cut_off_is_tried_again(tmp_path):
    journal = Journal.opened(tmp_path / "j", key)
    journal.keep(HALF)
    journal.keep(Trial("compile", FAILED, "no compiler"))
    text = (tmp_path / "j").read_text()
    (tmp_path / "j").write_text(text[:-20])
    found = Journal.opened(tmp_path / "j", key)
    assert found.known("half") == HALF
    assert found.known("compile") is None
    assert found.damaged == 1


def test_a_new_line_after_one_that_was_cut_off_is_whole(tmp_path):
    Journal.opened(tmp_path / "j", key).keep(HALF)
    text = (tmp_path / "j").read_text()
    (tmp_path / "j").write_text(text[:-20])
    Journal.opened(tmp_path / "j", key).keep(HALF)
    assert Journal.opened(tmp_path / "j", key).known("half") == HALF


def test_an_empty_file_becomes_a_journal(tmp_path):
    (tmp_path / "j").touch()
    Journal.opened(tmp_path / "j", key).keep(HALF)
    assert Journal.opened(tmp_path / "j", key).known("half") == HALF


def test_a_default_journal_that_cannot_be_read_is_set_aside(tmp_path):
    (tmp_path / "j").write_text("hello\n")
    journal = Journal.default(tmp_path / "j", key)
    journal.keep(HALF)
    assert "is not a journal of tune; it was renamed to j.unreadable" in journal.notes[0]
    assert (tmp_path / "j.unreadable").read_text() == "hello\n"
    assert Journal.default(tmp_path / "j", key).known("half") == HALF
    assert Journal.default(tmp_path / "j", key).notes == []


def test_without_a_place_for_the_default_journal_nothing_is_kept(tmp_path):
    (tmp_path / "file").touch()
    journal = Journal.default(tmp_path / "file" / "j", key)
    journal.keep(HALF)
    assert journal.path is None
    assert journal.notes[0].startswith("nothing is kept for a later run: ")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", ["hello\n", '{"format": "precisionbench.comparison"}\n', "[]\n", DEEP]
)
def test_another_file_is_refused_and_not_changed(tmp_path, text):
    (tmp_path / "j").write_text(text)
    with pytest.raises(ResultFormatError, match="is not a journal of tune"):
        Journal.opened(tmp_path / "j", key)
    assert (tmp_path / "j").read_text() == text


def test_a_journal_of_another_version_is_refused(tmp_path):
    Journal.opened(tmp_path / "j", key)
    header = json.loads((tmp_path / "j").read_text())
    (tmp_path / "j").write_text(json.dumps({**header, "version": 99}) + "\n")
    with pytest.raises(ResultFormatError, match="another version"):
        Journal.opened(tmp_path / "j", key)


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(OutputError, match="cannot be used"):
        Journal.opened(tmp_path, key)


def test_without_a_file_nothing_is_kept():
    journal = Journal.opened(None, key)
    journal.keep(HALF)
    assert journal.known("half") is None


def test_a_line_of_values_that_no_trial_has_is_damaged(tmp_path):
    Journal.opened(tmp_path / "j", key)
    with (tmp_path / "j").open("a") as file:
        file.write(json.dumps({"key": key("half"), "trial": {"spec": 3}}) + "\n[1]\n")
    assert Journal.opened(tmp_path / "j", key).damaged == 2


TRIAL = json_format.unstructured(HALF)
RESULT = json_format.unstructured(tuning_data())


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        f'{{"key": "a", "trial": {DEEP}',
        json.dumps({"key": "a", "trial": {**TRIAL, "outcome": "bogus"}}),
        json.dumps({"key": "a", "trial": {**TRIAL, "speedup": [3, 4, 5]}}),
        json.dumps({"key": 5, "trial": TRIAL}),
        json.dumps({"key": "a", "result": {**RESULT, "best": "none of them"}}),
        json.dumps({"key": "a", "result": {**RESULT, "trials": []}}),
    ],
)
def test_a_line_that_no_saved_result_could_hold_is_damaged(tmp_path, line):
    journal = Journal.opened(tmp_path / "j", key)
    journal.keep(HALF)
    journal.keep_result("all", tuning_data())
    with (tmp_path / "j").open("a") as file:
        file.write(f"{line}\n")
    found = Journal.opened(tmp_path / "j", key)
    assert found.damaged == 1
    assert (found.trials, found.results) == ({key("half"): HALF}, {"all": tuning_data()})


def test_the_default_journal_is_of_a_model_on_a_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PRECISIONBENCH_CACHE_DIR", str(tmp_path))
    here, there = default_journal("model", "H200"), default_journal("model", "Orin")
    assert here != there
    assert here.parent == tmp_path / "tune"
    monkeypatch.setenv("PRECISIONBENCH_CACHE_DIR", "")
    assert default_journal("model", "H200") is None


def test_keys_do_not_depend_on_the_order_of_names():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


class Flagged(nn.Module):
    """A model of which an argument is no tensor."""

    def forward(self, features, flag=None):
        return features


def spec_key(inputs, unread="", **options):
    """The key of a configuration for these inputs."""
    workload = resolve(Flagged(), inputs, device="cpu", **options)
    where = environment.capture(workload.device, [])
    target = target_of(where, Flagged(), {})
    judge = ErrorJudge.of(None, workload.inputs, 0)
    return Keys.of(target, where, judge, workload, "eager", unread).of_spec("eager")


@pytest.mark.parametrize(
    "other",
    [
        (torch.ones(4, 2), False),
        (torch.ones(4, 2), "a"),
        (torch.ones(4, 2), [1, 2]),
        (torch.ones(4, 2), None),
        {"features": torch.ones(4, 2), "flag": False},
        (torch.zeros(4, 2), True),
    ],
)
def test_all_inputs_are_part_of_the_key(other):
    inputs = (torch.ones(4, 2), True)
    assert spec_key(inputs) == spec_key((torch.ones(4, 2), True))
    assert spec_key(inputs) != spec_key(other)


def test_the_batch_size_is_part_of_the_key():
    inputs = torch.ones(4, 2)
    assert spec_key(inputs, batch_size=1) != spec_key(inputs)
    assert spec_key(inputs, batch_size=4) == spec_key(inputs)


def test_what_cannot_be_read_is_part_of_the_key():
    assert spec_key(torch.ones(4, 2), "one") != spec_key(torch.ones(4, 2), "other")
