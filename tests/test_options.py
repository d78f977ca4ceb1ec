"""The options of a comparison: checked when they are made, and recorded in the result."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.errors import SpecError
from precisionbench.measure.options import Options
from precisionbench.results import json_format


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launcher": "cloud"}, "there is no launcher 'cloud'; known: 'inline', 'process'"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to 2**63 - 1"),
        ({"budget_s": 0}, "budget_s is 0; give a number of seconds above 0"),
        ({"replicas": 0}, "replicas is 0; give a whole number up to 64"),
        ({"sessions": None, "replicas": 65}, "replicas is 65; give a whole number up to 64"),
        ({"sessions": 1.5}, "sessions is 1.5; give a whole number up to 64"),
        ({"effort": "some"}, "there is no effort 'some'; known: 'quick', 'normal', 'thorough'"),
        (
            {"passes": "energy"},
            "passes is 'energy'; give True, False, or a tuple of energy, transfers, graph, device, "
            "wall",
        ),
        ({"noise_floor": 1}, "noise_floor is 1; give a standard deviation such as 0.0025"),
        (
            {"launcher": "inline", "replicas": 2},
            "the launcher 'inline' measures each backend once, in this process; leave replicas and "
            "sessions out, or use the launcher 'process'",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(SpecError) as caught:
        Options(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("budget_s", "device_type", "rows", "total_s"),
    [
        (None, "cuda", 2, 120.0),
        (None, "cuda", 100, 900.0),
        (None, "cpu", 3, 30.0),
        (7.0, "cuda", 2, 7.0),
    ],
)
def test_the_budget_depends_on_the_device_and_the_rows_unless_it_is_given(
    budget_s, device_type, rows, total_s
):
    assert Options(budget_s=budget_s).total_budget_s(device_type, rows) == total_s


def test_the_noise_floor_depends_on_the_device_unless_it_is_given():
    assert Options().noise_floor_on("cuda") == 0.0025
    assert Options().noise_floor_on("cpu") == 0.0
    assert Options(noise_floor=0).noise_floor_on("cuda") == 0.0


def test_options_are_recorded_as_json_values():
    record = Options(seed=np.int64(5), replicas=np.int32(2), budget_s=1.5).as_record()
    assert json.loads(json.dumps(record)) == {
        "launcher": "process",
        "seed": 5,
        "budget_s": 1.5,
        "replicas": 2,
        "sessions": 1,
        "noise_floor": None,
        "shared_cores": None,
        "evidence": True,
        "build_together": False,
        "passes": True,
    }


SHORT = {"launcher": "inline", "budget_s": 0.1, "evidence": False}


def short_comparison(**options) -> pb.Comparison:
    model, inputs = nn.Linear(2, 2), torch.rand(1, 2)
    return pb.compare(model, inputs, backends=[], device="cpu", **SHORT, **options)


def test_a_result_and_its_journal_record_the_options(tmp_path):
    comparison = short_comparison(journal=tmp_path / "journal")
    expected = Options(**SHORT).as_record()
    comparison.save(tmp_path / "r.json")
    assert comparison.data.options == expected
    assert pb.load(tmp_path / "r.json").data.options == expected
    assert pb.load(tmp_path / "journal").data.options == expected


def test_a_result_without_recorded_options_is_written_without_them(tmp_path):
    comparison = short_comparison()
    text = json_format.to_json(attrs.evolve(comparison.data, options=None))
    assert "options" not in json.loads(text)
    assert json_format.to_json(json_format.from_json(text)) == text


def test_a_quick_comparison_has_one_process_six_rounds_and_nothing_else():
    quick = Options.of("quick")
    assert (quick.replicas, quick.passes, quick.evidence, quick.max_rounds) == (1, False, False, 6)
    assert quick.total_budget_s("cuda", 2) == 30.0
    assert "from at most 6 rounds, without memory, energy and device times or profiling" in (
        quick.note()
    )


def test_a_thorough_comparison_has_more_processes_and_rounds_and_a_larger_budget():
    thorough = Options.of("thorough")
    assert (thorough.replicas, thorough.passes, thorough.evidence) == (6, True, True)
    assert thorough.rounds == {"min_rounds": 12, "until_clear": False}
    assert thorough.total_budget_s("cpu", 2) == 80.0
    assert thorough.note() == ""


def test_what_is_given_wins_over_the_effort():
    given = {"replicas": 2, "evidence": True, "passes": True, "budget_s": 5.0}
    quick = Options.of("quick", **given)
    assert {name: getattr(quick, name) for name in given} == given
    assert "without" not in quick.note()
    assert quick.total_budget_s("cuda", 2) == 5.0


def test_the_effort_is_recorded_where_it_is_not_the_normal_one():
    assert Options.of("normal") == Options()
    assert "effort" not in Options().as_record()
    assert Options.of("quick").as_record()["effort"] == "quick"


def test_a_quick_comparison_says_so_in_a_note():
    found = short_comparison(effort="quick")
    (note,) = found.data.notes
    assert note.startswith("the effort 'quick' gives a first estimate")
    assert found.data.options["effort"] == "quick"
    assert len(found.results[0].measurement.rounds) <= 6
