"""The remedy for an inaccurate output is one that the row can take."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import HALF_CONV, comparison, conv, evidence
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import LayerError


def errors(*pairs: tuple[str, float]) -> tuple[LayerError, ...]:
    return tuple(LayerError(path, error, 1.0, 0, 1.0) for path, error in pairs)


def inaccurate(row: dict, *, base_error: float = 1e-7, error: float = 0.4):
    base = evidence(conv(1e-3, layer="a"), errors=errors(("a", base_error), ("", base_error)))
    is_float32 = "claims" in row and row["claims"].dtype == "float32"
    part = conv(1e-4) if is_float32 else conv(1e-4, "float16", HALF_CONV)
    half = evidence(attrs.evolve(part, layer="a"), errors=errors(("a", error), ("", error)))
    found = diagnosis_of(comparison(base, half, half_row=row))
    return {one.row: one for one in found.precisions}, found.answers[-1].answer


HALF = {"dtype": "float16", "memory_format": "contiguous", "fp32_layers": None}
EAGER = "eager PyTorch"
ROWS = {
    "half": (
        {"options": HALF, "claims": Claims("float16", engine=EAGER)},
        "keep a in float32 (half:fp32_layers=a)",
    ),
    "half in bfloat16": (
        {
            "backend": "half:dtype=bfloat16,memory_format=channels_last#2",
            "options": {**HALF, "dtype": "bfloat16"},
            "claims": Claims("bfloat16", engine=EAGER),
        },
        "keep a in float32 (half:dtype=bfloat16,memory_format=channels_last,fp32_layers=a)",
    ),
    "a name of the user's": (
        {
            "backend": "mine",
            "label": "mine",
            "options": {**HALF, "dtype": "bfloat16"},
            "claims": Claims("bfloat16", engine=EAGER),
        },
        "keep a in float32 (half:dtype=bfloat16,fp32_layers=a)",
    ),
    "autocast": (
        {"backend": "autocast", "name": "autocast", "claims": Claims("float16", mixed=True)},
        "disable autocast around a in the model's code",
    ),
    "compile": (
        {
            "backend": "compile:dtype=bfloat16",
            "name": "compile",
            "options": {"dtype": "bfloat16"},
            "claims": Claims("bfloat16", engine="torch.compile"),
        },
        "keep a in float32 in the model's code (half:dtype=bfloat16,fp32_layers=a measures that in "
        "eager PyTorch)",
    ),
    "TF32": (
        {"backend": "eager:precision=tf32", "name": "eager", "claims": Claims("tf32")},
        "use float32 without TF32",
    ),
    "INT8": (
        {"backend": "torch2trt", "name": "torch2trt", "claims": Claims("int8")},
        "calibrate with more representative inputs, or use FP16/BF16",
    ),
    "float32 of another engine": (
        {"backend": "compile", "name": "compile", "options": {}, "claims": Claims("float32")},
        "float32 itself is inaccurate here: compute the critical part in a in float64, or change "
        "its formula, such as a difference of large numbers",
    ),
}


@pytest.mark.parametrize(("row", "remedy"), ROWS.values(), ids=ROWS)
def test_the_remedy_is_one_that_the_row_can_take(row, remedy):
    found, answer = inaccurate(row)
    judged = found[row.get("backend", "half")]
    assert (judged.verdict, judged.remedy) == ("inaccurate", remedy)
    assert remedy in answer


def test_layers_in_float32_are_no_remedy_where_float32_is_inaccurate_too():
    found, _ = inaccurate({"claims": Claims("float16", engine=EAGER)}, base_error=0.3)
    assert found["eager"].verdict == found["half"].verdict == "inaccurate"
    assert found["eager"].keep == found["half"].keep == ()
    assert found["eager"].remedy == found["half"].remedy
    assert found["half"].remedy.startswith("float32 itself is inaccurate here")


def test_an_accurate_row_needs_no_remedy():
    found, _ = inaccurate({}, error=1e-3)
    assert {one.remedy for one in found.values()} == {""}
