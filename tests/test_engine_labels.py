"""Whether the engine that a row claims ran it: compiled graphs and CUDA graphs."""

from __future__ import annotations

import pytest

from made_up_results import (
    CLEAN,
    HALF_CONV,
    comparison,
    conv,
    conv_on_a_cpu,
    evidence,
    on_a_cpu,
)
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Label
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import COMPILED_GRAPH, Evidence, Tensor

COMPILED = {
    "graphs": 1,
    "graph_breaks": 0,
    "graph_break_reasons": [],
    "skipped_frames": 0,
    "skip_reasons": [],
    "cuda_graphs": "not requested",
}
COMPILES = Claims("float16", engine="torch.compile")
HALF = evidence(conv(0.3e-3, "float16", HALF_CONV))


def label(
    details: dict | None = None,
    seen: Evidence | None = HALF,
    *,
    claims: Claims | None = None,
    on_gpu: bool = True,
) -> Label:
    """The label of a compiled float16 row with these details."""
    row = {
        "name": "compile",
        "details": {**COMPILED, **(details or {})},
        "claims": claims or COMPILES,
    }
    data = comparison(CLEAN["base"], seen, half_row=row, **({} if on_gpu else {"gpu": None}))
    return diagnosis_of(data).labels[1]


def profiled(compiled_share: float | None) -> Evidence:
    return evidence(conv(0.3e-3, "float16", HALF_CONV), compiled_share=compiled_share)


@pytest.mark.parametrize(
    ("details", "evidence_of"),
    [
        (
            {"skipped_frames": 1, "skip_reasons": ["Unsupported Tensor.item() call"]},
            "1 skipped function: Unsupported Tensor.item() call",
        ),
        (
            {"graph_breaks": 1, "graph_break_reasons": ["Skip inlining a disabled function"]},
            "1 graph break: Skip inlining a disabled function",
        ),
        ({}, "no graph break was recorded"),
    ],
    ids=["whole-function", "disabled", "no-reason"],
)
def test_a_compiled_row_without_graphs_is_a_false_label(details, evidence_of):
    found = label({**details, "graphs": 0}, profiled(0.0))
    assert (found.verdict, found.engine) == ("false", "torch.compile")
    assert found.sentence == (
        "half is labelled torch.compile but ran in eager PyTorch: no graph was compiled "
        f"({evidence_of})"
    )


def test_it_is_false_without_a_profile_as_well():
    assert label({"graphs": 0}, None).verdict == "false"


def test_what_has_nothing_to_compile_is_no_false_label():
    assert label({"graphs": 0}, evidence(layers=())).verdict == "unknown"


@pytest.mark.parametrize(
    ("share", "verdict"), [(1.0, "true"), (0.97, "true"), (0.7, "partly"), (0.2, "false")]
)
def test_a_partly_compiled_row_says_how_much(share, verdict):
    details = {"graphs": 2, "graph_breaks": 1, "graph_break_reasons": ["print"]}
    found = label(details, profiled(share))
    assert found.verdict == verdict
    if verdict != "true":
        says = f"{1 - share:.0%} of the profiled time is outside of the 2 compiled graphs"
        assert f"{says} (1 graph break: print)" in found.sentence


def test_the_engine_is_not_part_of_the_answer_on_precision():
    row = {"name": "compile", "details": {**COMPILED, "graphs": 0}, "claims": COMPILES}
    found = diagnosis_of(comparison(CLEAN["base"], HALF, half_row=row))
    assert found.labels[1].is_wrong
    assert next(one for one in found.answers if one.topic == "FP16/BF16").short == "yes"


def test_graph_breaks_of_which_nothing_is_outside_leave_the_label_true():
    details = {"graphs": 3, "graph_breaks": 2, "graph_break_reasons": ["print"]}
    assert label(details, profiled(1.0)).verdict == "true"
    assert label(details, profiled(None)).verdict == "true"  # of an older file


def test_a_compiled_row_without_breaks_is_true():
    assert label(seen=profiled(1.0)).verdict == "true"


def test_a_precision_and_an_engine_that_are_both_wrong_are_named():
    found = label({"graphs": 0}, evidence(conv(), compiled_share=0.0))
    assert (found.verdict, found.claim) == ("false", "float16")
    assert found.sentence.startswith(
        "half is labelled float16 and torch.compile but ran in float32 and in eager PyTorch: "
    )
    assert "no graph was compiled" in found.sentence


GRAPHED = Claims("float16", engine="torch.compile", cuda_graphs=True)
TUNED = Claims("float16", engine="torch.compile", cuda_graphs=True, autotuned=True)


def test_cuda_graphs_that_were_skipped_are_a_false_label():
    found = label({"cuda_graphs": "skipped 2 times: mutated inputs"}, claims=GRAPHED)
    assert found.sentence == (
        "half is labelled CUDA graphs but ran without CUDA graphs: CUDA graphs were skipped "
        "2 times (mutated inputs)"
    )


def test_cuda_graphs_of_a_part_are_partly_true():
    seen = evidence(conv(0.3e-3, "float16", HALF_CONV), graph_launches=1.0)
    details = {"cuda_graphs": "skipped 1 times: a device copy"}
    assert label(details, seen, claims=GRAPHED).verdict == "partly"


@pytest.mark.parametrize(("claims", "verdict"), [(GRAPHED, "false"), (TUNED, "true")])
def test_on_a_cpu_a_mode_that_only_asks_for_graphs_is_false(claims, verdict):
    seen = evidence(conv_on_a_cpu(0.3e-3, "float16"))
    details = {"cuda_graphs": "skipped: not supported on cpu"}
    assert label(details, seen, claims=claims, on_gpu=False).verdict == verdict


def test_cuda_graphs_that_were_used_or_not_requested_are_no_deviation():
    assert label({"cuda_graphs": "used"}, claims=GRAPHED).verdict == "true"
    assert label({"cuda_graphs": "not requested"}).verdict == "true"


def test_a_model_that_is_compiled_by_itself_is_noted_beside_its_label():
    data = comparison(evidence(conv(), compiled_share=0.9), HALF)
    found = diagnosis_of(data)
    assert found.labels[0].verdict == "true"
    assert [note for note in found.notes if "compiles by itself" in note] == [
        "eager: 90% of the profiled time is in graphs that the model compiles by itself "
        "(torch.compile)"
    ]


@pytest.mark.parametrize(
    ("name", "verdict"), [("aten::transpose", "unknown"), ("aten::mul", "false")]
)
def test_views_of_an_input_that_are_made_after_the_graph_are_no_work_outside_of_it(name, verdict):
    around = "Torch-Compiled Region: 0/0"
    seen = evidence(
        on_a_cpu(COMPILED_GRAPH, 1e-6),
        on_a_cpu(around, 10e-6),
        on_a_cpu(name, 3e-6, Tensor((8, 64), "float16"), parents=(around,)),
        compiled_share=0.25,
    )
    assert label(seen=seen, on_gpu=False).verdict == verdict
