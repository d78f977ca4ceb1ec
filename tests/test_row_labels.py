"""Labels that users give to rows."""

from __future__ import annotations

import csv
import re

import attrs
import pytest

import precisionbench as pb
from made_up_results import comparison_data, recorded
from precisionbench.backends.half import Half
from precisionbench.errors import RowNotFoundError, SpecError
from precisionbench.measure.rows import plan
from precisionbench.report.headline import headline
from precisionbench.results import ComparisonData, json_format
from precisionbench.results.journal import Journal
from precisionbench.spec_syntax import split_label
from precisionbench.testing import thresholds


def labelled() -> pb.Comparison:
    """The made-up comparison, whose half row is called `fast`."""
    data = comparison_data()
    rows = [attrs.evolve(row, label="fast" * (row.backend == "half")) for row in data.results]
    return pb.Comparison(attrs.evolve(data, results=tuple(rows)))


@pytest.mark.parametrize(
    ("text", "label", "spec"),
    [
        ("fast=half:dtype=bfloat16", "fast", "half:dtype=bfloat16"),
        ("my row = half", "my row", "half"),
        ("half:dtype=bfloat16", "", "half:dtype=bfloat16"),
        ("half", "", "half"),
        ("=half", "", "=half"),
    ],
)
def test_a_label_stands_before_the_spec(text, label, spec):
    assert split_label(text) == (label, spec)


@pytest.mark.parametrize(
    "backends",
    [
        ["small=bf16", "half", "fast=compile"],
        {"small": "half:dtype=bfloat16", "half": Half(), "fast": "compile"},
    ],
)
def test_rows_have_labels_beside_their_specs(backends):
    rows, reference = plan(backends)
    assert reference == "eager"
    assert [(row.label, row.name) for row in rows] == [
        ("", "eager"),
        ("small", "half:dtype=bfloat16"),
        ("", "half"),
        ("fast", "compile"),
    ]


def test_equal_rows_are_told_apart_by_their_labels():
    rows, reference = plan({"first": "half", "second": "half"}, reference="second")
    assert [(row.label, row.name) for row in rows] == [("first", "half"), ("second", "half#2")]
    assert reference == "half#2"


@pytest.mark.parametrize(
    ("backends", "said"),
    [
        (["fast=half", "fast=compile"], "the label 'fast' of half is also a name of compile"),
        ({"eager:precision=fp32": "half"}, "the label 'eager:precision=fp32' is not a word"),
        ({"half": "compile", "x": "half"}, "the label 'half' of compile is also a name of half"),
        ({"fp16": "compile", "x": "half"}, "the label 'fp16' of compile is also a name of half"),
    ],
)
def test_a_label_names_one_row_only(backends, said):
    with pytest.raises(SpecError, match=said):
        plan(backends)


def test_a_row_is_found_by_its_label_and_by_its_spec():
    found = labelled()
    assert found["fast"] is found["half"] is found["fp16"]
    assert "fast" in found
    assert found.speedup("fast") == found.speedup("half")
    with pytest.raises(RowNotFoundError, match="did you mean 'fast'"):
        found["fats"]


def test_the_table_shows_the_label_before_the_spec():
    found = labelled()
    assert "fast (half)" in str(found)
    assert "`fast (half)`" in found.to_markdown()
    assert "fast (half)" in found._repr_html_()


def test_a_threshold_may_name_a_label():
    found = labelled()
    fast, half = (thresholds.parse(f"{name}>=1000").missed_by(found) for name in ("fast", "half"))
    assert fast == half != ""


def test_labels_are_saved_and_files_without_labels_stay_as_they_were(tmp_path):
    found = labelled()
    found.save(tmp_path / "r.json")
    assert pb.load(tmp_path / "r.json") == found
    plain = pb.Comparison(comparison_data()).to_json()
    assert '"label"' not in plain
    assert json_format.to_json(json_format.from_json(plain)) == plain


def test_a_journal_keeps_the_labels_of_rows_that_were_not_measured(tmp_path):
    rows, reference = plan(["fast=half"])
    data = comparison_data()
    header = {**json_format.unstructured(data), "reference": reference}
    del header["results"], header["failures"]
    journal = Journal(tmp_path / "j", header, [row.identity for row in rows])
    eager = data.results[0]
    journal.add_row(eager, 0)
    for block in eager.measurement.blocks:
        journal.add_block("eager", block)
    journal.close()
    (failed,) = pb.load(tmp_path / "j").failures
    assert (failed.backend, failed.label) == ("half", "fast")


def with_label(data: ComparisonData, name: str) -> ComparisonData:
    """The same comparison, whose row of this name is called `mine`."""
    rows = (attrs.evolve(row, label="mine" * (row.backend == name)) for row in data.results)
    return attrs.evolve(data, results=tuple(rows))


@pytest.mark.uncounted
def test_texts_call_a_row_by_its_label():
    data = with_label(recorded("resnet50-five"), "half")
    found = pb.Comparison(data)
    diagnosis = pb.explain(found)
    texts = [str(diagnosis), repr(diagnosis), *(answer.answer for answer in diagnosis.answers)]
    below_the_table = str(found).partition("Speed-ups:")[2]
    for text in (*texts, below_the_table):
        assert re.search(r"(?<![\w.])half(?![\w:-])", text.replace("half precision", "")) is None
    assert "mine" in str(diagnosis)
    assert "mine" in below_the_table
    assert {finding.row for finding in diagnosis.findings} & {"half"}  # records have the spec


def test_the_headline_calls_rows_by_their_labels():
    data = recorded("resnet50-batch1")
    assert headline(with_label(data, "half")) == headline(data).replace("half ", "mine ")
    assert headline(with_label(data, "eager")) == headline(data).replace("eager", "mine")


def test_rows_that_failed_are_called_by_their_labels():
    data = comparison_data()
    failures = tuple(attrs.evolve(one, label="mine") for one in data.failures)
    text = str(pb.Comparison(attrs.evolve(data, failures=failures)))
    assert "  mine: " in text or "Not available: mine (requires" in text
    gone = attrs.evolve(failures[0], backend="eager", label="base")
    text = headline(attrs.evolve(data, results=data.results[1:], failures=(gone,)))
    assert text.startswith("No speed-ups: the reference base could not be measured")


def test_tables_for_programs_have_the_label():
    header, *lines = csv.reader(labelled().to_csv().splitlines())
    assert header[:2] == ["backend", "label"]
    assert ["half", "fast"] in [line[:2] for line in lines]
    assert list(labelled().to_dataframe()["label"])[:2] == ["", "fast"]
