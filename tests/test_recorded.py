"""The diagnosis of comparisons that were measured on a real GPU.

An NVIDIA H100, 2026-11-25, by `python benchmarks/planted_causes.py`; times are rounded.
"""

from __future__ import annotations

import re

import pytest

from made_up_results import RECORDED, recorded
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of
from precisionbench.report.diagnosis import to_text

HALF, CL = "half", "half:memory_format=channels_last"
# What must be found, by recording and row; nothing else may be. Some are true beside what was
# planted: small calls are bound by the host, and half in NCHW converts layouts.
EXPECTED = {
    "autocast": {("recast-weights", "autocast-each-call"), ("launch-bound", "autocast-each-call")},
    "channels-25": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "channels-50": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "depthwise": {("tensor-core-obstacles", HALF)},
    "grouped": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "host-copy": {(c, r) for c in ("host-copies", "waits-inside") for r in ("eager", HALF)},
    "item": {("waits-inside", "eager"), ("waits-inside", HALF)},
    "linear-1001": {("tensor-core-obstacles", HALF)},
    "nchw": {("layout-conversions", HALF)},
    "normalised": {("memory-bound", HALF)},
    "overflow": {("overflow", HALF), ("launch-bound", HALF)},
    "recast": {("recast-weights", "autocast:cache_enabled=false")},
    "resnet50-batch1": {("launch-bound", "eager"), ("launch-bound", HALF)},
    "resnet50-five": {
        ("layout-conversions", "eager:precision=tf32"),
        *((c, r) for c in ("layout-conversions", "memory-bound")
          for r in (HALF, "half:dtype=bfloat16")),
        ("memory-bound", CL),
    },
    "small-launches": {("launch-bound", "eager"), ("launch-bound", HALF)},
    "zeros": {("constant-inputs", "eager"), ("layout-conversions", HALF)},
}  # fmt: skip
MISLABELLED = "mislabelled"
# Nothing is wrong with the others.
CLEAN = sorted(
    {file.name.partition(".")[0] for file in RECORDED.glob("*.json.gz")} - {*EXPECTED, MISLABELLED}
)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_planted_causes_are_found_and_no_others(name):
    found = {(f.cause, f.row) for f in diagnosis_of(recorded(name)).findings}
    assert found == EXPECTED[name]


def test_there_are_twenty_clean_cases():
    assert len(CLEAN) == 20


@pytest.mark.parametrize("name", CLEAN)
def test_clean_cases_have_no_findings(name):
    found = diagnosis_of(recorded(name))
    assert found.findings == ()
    assert {label.verdict for label in found.labels if label.claim} == {"true"}


def test_a_mislabelled_row_is_found():
    labels = {label.row: label.verdict for label in diagnosis_of(recorded(MISLABELLED)).labels}
    assert labels == {"eager": "true", "half-by-name": "false"}


@pytest.mark.parametrize("name", EXPECTED)
def test_no_label_is_called_false(name):
    labels = diagnosis_of(recorded(name)).labels
    assert {label.verdict for label in labels if label.claim} == {"true"}


@pytest.mark.parametrize("name", [*EXPECTED, *CLEAN])
def test_few_matrix_kernels_have_an_unknown_unit(name):
    data = recorded(name)
    for row in data.results:
        facts = facts_of(data, row)
        assert facts.tensor_core_share + facts.cuda_core_share == pytest.approx(1, abs=0.05)


# cuDNN lets kernels of an LSTM run at the same time, so that their times add up to more
@pytest.mark.parametrize("name", [*EXPECTED, *(name for name in CLEAN if name != "lstm")])
def test_the_times_of_kernels_add_up_to_the_device_time(name):
    data = recorded(name)
    for row in data.results:
        if row.launch_bound == "host_bound" or row.device_s is None:
            continue  # gaps between kernels, or a call that waits inside
        # a profile is taken later, on a device that may be hotter or hold its clocks down
        assert facts_of(data, row).busy_s == pytest.approx(row.device_s, rel=0.35)


@pytest.mark.parametrize("name", ["channels-25", "channels-50", "depthwise"])
def test_the_speed_up_of_half_is_below_its_ceiling(name):
    ceiling = diagnosis_of(recorded(name)).ceiling
    assert ceiling.row == "half"
    assert ceiling.brought.value <= ceiling.best.high


def test_the_text_answers_all_questions():
    text = to_text(diagnosis_of(recorded("channels-50")))
    assert "Layout conversions around convolutions\n    half: suspected" in text
    assert "input channels 50 is not a multiple of 8" in " ".join(text.split())
    answers = text.partition("Ten questions\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"^  \S", answers, re.MULTILINE)) == 10
    assert all(len(line) <= 80 for line in text.splitlines())
