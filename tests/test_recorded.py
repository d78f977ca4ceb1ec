"""The diagnosis of comparisons that were measured on a real GPU.

An NVIDIA H100, 2026-11-25, by `python benchmarks/planted_causes.py`; times are rounded.
"""

from __future__ import annotations

import pytest

from precisionbench.diagnosis.diagnosing import diagnosis_of
from precisionbench.diagnosis.facts import facts_of
from precisionbench.report.diagnosis import to_text
from scenes import recorded

# What must be found, by recording and row; nothing else may be.
EXPECTED = {
    "autocast": {("recast-weights", "autocast-each-call"), ("launch-bound", "autocast-each-call")},
    "channels-25": {("layout-conversions", "half"), ("tensor-core-obstacles", "half")},
    "channels-50": {("layout-conversions", "half"), ("tensor-core-obstacles", "half")},
    "depthwise": {("tensor-core-obstacles", "half")},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_planted_causes_are_found_and_no_others(name):
    found = {(f.cause, f.row) for f in diagnosis_of(recorded(name)).findings}
    # a launch-bound row is what it is at such sizes; it is planted in one of them only
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_no_label_is_called_false(name):
    labels = diagnosis_of(recorded(name)).labels
    assert {label.verdict for label in labels if label.claim} == {"true"}


@pytest.mark.parametrize("name", EXPECTED)
def test_no_kernel_that_multiplies_is_of_an_unknown_unit(name):
    data = recorded(name)
    for row in data.results:
        facts = facts_of(data, row)
        assert facts.tensor_core_share + facts.cuda_core_share == pytest.approx(1)


@pytest.mark.parametrize("name", EXPECTED)
def test_kernels_add_up_to_the_devices_time(name):
    data = recorded(name)
    for row in data.results:
        assert facts_of(data, row).busy_s == pytest.approx(row.device_s, rel=0.2)


@pytest.mark.parametrize("name", ["channels-25", "channels-50", "depthwise"])
def test_half_brought_no_more_than_its_ceiling(name):
    ceiling = diagnosis_of(recorded(name)).ceiling
    assert ceiling.row == "half"
    assert ceiling.brought.value <= ceiling.best.high


def test_the_text_answers_all_questions():
    text = to_text(diagnosis_of(recorded("channels-50")))
    assert "half: layout conversions around convolutions, suspected" in text
    assert "input channels 50 is no multiple of 8" in " ".join(text.split())
    assert text.count("? ") >= 10
    assert all(len(line) <= 80 for line in text.splitlines())
