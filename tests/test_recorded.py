"""The diagnosis of comparisons that were measured on a real GPU.

By `python benchmarks/planted_causes.py`, on an NVIDIA H100 (2026-11-25) and an NVIDIA H200
(2026-11-29); times are rounded.
"""

from __future__ import annotations

import re

import pytest

from made_up_results import RECORDED, recorded
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of
from precisionbench.report.diagnosis import to_text

pytestmark = pytest.mark.uncounted

HALF, CL = "half", "half:memory_format=channels_last"
COMPILED = ("eager", "compile")
ONNX = "onnxruntime:precision=fp16,provider=cuda"
WINDOWS = ("eager", "eager:grad_mode=no_grad")
# What must be found, by recording and row; nothing else may be. Some are true beside what was
# planted: small calls are bound by the host, and half in NCHW converts layouts.
EXPECTED = {
    "allocations": {("device-allocations", "eager")},
    "attention-mask": {
        *(("attention-fallback", row) for row in ("eager", HALF)),
        ("memory-bound", HALF),
    },
    "attention-weights": {
        *(("attention-fallback", row) for row in ("eager", HALF)),
        ("memory-bound", HALF),
    },
    "attention-written": {
        *(("attention-fallback", row) for row in ("eager", HALF)),
        ("memory-bound", HALF),
    },
    "autocast": {("recast-weights", "autocast-each-call"), ("launch-bound", "autocast-each-call")},
    "channels-25": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "channels-50": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "cudnn-deterministic": {("torch-settings", "eager"), ("torch-settings", CL)},
    "cudnn-off": {
        ("torch-settings", "eager"), ("torch-settings", HALF), ("launch-bound", HALF),
    },
    "depthwise": {("tensor-core-obstacles", HALF)},
    "engine-on-the-cpu": {("engine-on-the-cpu", ONNX), ("host-copies", ONNX)},
    "every-tenth-call": {
        *(("uneven-calls", row) for row in ("eager", HALF)),
        ("launch-bound", HALF),
    },
    "float32-ramp": {("wider-dtype", HALF)},
    "float64-window": {("wider-dtype", row) for row in WINDOWS},
    "graph-break": {("graph-breaks", "compile")},
    "group-norm": {
        ("norms-undo-channels-last", CL), ("memory-bound", CL), ("layout-conversions", HALF),
    },
    "grouped": {("layout-conversions", HALF), ("tensor-core-obstacles", HALF)},
    "host-copy": {(c, r) for c in ("host-copies", "waits-inside") for r in ("eager", HALF)},
    "int8-codes": {("recast-weights", row) for row in ("eager", HALF)},
    "item": {("waits-inside", "eager"), ("waits-inside", HALF)},
    "linear-1001": {("tensor-core-obstacles", HALF)},
    "lstm-steps": {("recurrent-layers", row) for row in ("eager", HALF)},
    "lstm-unpacked": {
        *(("recurrent-layers", row) for row in ("eager", HALF)),
        ("memory-bound", HALF),
    },
    "masked-attention": {("attention-fallback", row) for row in ("eager", HALF)},
    "nchw": {("layout-conversions", HALF)},
    "no-fused-attention": {
        *((c, r) for c in ("torch-settings", "attention-fallback") for r in ("eager", HALF)),
        ("memory-bound", HALF),
    },
    "norm-in-float32": {("batch-norm-in-float32", HALF), ("memory-bound", HALF)},
    "normalised": {("memory-bound", HALF)},
    "overflow": {("overflow", HALF), ("launch-bound", HALF)},
    "overflow-within": {("overflow", HALF), ("launch-bound", HALF)},
    "recast": {("recast-weights", "autocast:cache_enabled=false")},
    "recompiles": {("recompilation", "compile")},
    "resnet50-batch1": {("launch-bound", "eager"), ("launch-bound", HALF)},
    "resnet50-five": {
        ("layout-conversions", "eager:precision=tf32"),
        *((c, r) for c in ("layout-conversions", "memory-bound")
          for r in (HALF, "half:dtype=bfloat16")),
        ("memory-bound", CL),
    },
    "scatter": {("half-scatter", HALF)},
    "short-calls": {
        *(("launch-bound", row) for row in ("eager", "compile")),
        ("short-compiled-calls", "compile"),
    },
    "small-launches": {("launch-bound", "eager"), ("launch-bound", HALF)},
    "tf32": {("tf32-baseline", "float32-by-name")},
    "uncompiled": {("graph-breaks", "compile")},
    "whole-sums": {("torch-settings", HALF), ("launch-bound", HALF)},
    "zeros": {("constant-inputs", "eager"), ("layout-conversions", HALF)},
}  # fmt: skip
MISLABELLED = "mislabelled"
# Labels that are not true, by recording and row. The math kernel of attention computes in float32;
# without matrix operations, or without a profile, no label can be verified.
LABELS = {
    MISLABELLED: {"half-by-name": "false"},
    "attention-mask": {HALF: "false"},
    "float32-window": dict.fromkeys(WINDOWS, "unknown"),
    "float64-window": dict.fromkeys(WINDOWS, "unknown"),
    "graph-break": {"compile": "partly"},
    "long-compiled-calls": dict.fromkeys(COMPILED, "unknown"),
    "no-fused-attention": {HALF: "false"},
    "recompiles": dict.fromkeys(COMPILED, "unknown"),
    "short-calls": dict.fromkeys(COMPILED, "unknown"),
    "tf32": {"float32-by-name": "false"},
    "uncompiled": {"compile": "false"},
}
# Nothing is wrong with the others.
CLEAN = sorted(
    {file.name.partition(".")[0] for file in RECORDED.glob("*.json.gz")} - {*EXPECTED, MISLABELLED}
)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_planted_causes_are_found_and_no_others(name):
    found = {(f.cause, f.row) for f in diagnosis_of(recorded(name)).findings}
    assert found == EXPECTED[name]


def test_there_are_as_many_clean_cases_as_the_documentation_states():
    assert len(CLEAN) == 30


@pytest.mark.parametrize("name", CLEAN)
def test_clean_cases_have_no_findings(name):
    assert diagnosis_of(recorded(name)).findings == ()


@pytest.mark.parametrize("name", [MISLABELLED, *EXPECTED, *CLEAN])
def test_the_labels_that_are_not_true_are_found_and_no_others(name):
    labels = [label for label in diagnosis_of(recorded(name)).labels if label.claim]
    wrong = {label.row: label.verdict for label in labels if label.verdict != "true"}
    assert labels
    assert wrong == LABELS.get(name, {})


# Without cuDNN torch rearranges the input by itself; cuBLAS adds parts of a sum in another kernel.
@pytest.mark.parametrize(
    "name", [name for name in (*EXPECTED, *CLEAN) if name not in ("cudnn-off", "whole-sums")]
)
def test_few_matrix_kernels_have_an_unknown_unit(name):
    data = recorded(name)
    for row in data.results:
        facts = facts_of(data, row)
        known = facts.tensor_core_share + facts.cuda_core_share
        assert not facts.work or known == pytest.approx(1, abs=0.05)


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
