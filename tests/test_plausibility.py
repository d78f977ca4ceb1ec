"""Whether claimed rates are held against peaks rightly, the founding person's among them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up_results import recorded
from precisionbench import published
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.models import item_flops
from precisionbench.diagnosis.plausibility import (
    IMPOSSIBLE,
    POSSIBLE,
    UNKNOWN,
    UNLIKELY,
    Claim,
    judge,
    judgements_of,
    measured_flops,
)
from precisionbench.reference_data.model_flops import entries
from precisionbench.reference_data.peaks import all_devices, devices_named

(XAVIER,) = devices_named("agx xavier")
(RESNET50,) = item_flops("resnet50", "v1.5", "3x224x224")


def claim(items_per_s: float, precision: str, **more) -> Claim:
    return Claim(items_per_s, precision, XAVIER, RESNET50, unit="img/s", **more)


def test_resnet50_costs_twice_its_multiply_adds():
    assert RESNET50.usual == pytest.approx(8.178e9)
    # Thirteen of its sixteen 3x3 convolutions have stride 1, with 115.6 MMAC each.
    saved = 13 * 115.605504e6 * 2 * 3 / 4
    assert RESNET50.least == pytest.approx(RESNET50.usual - saved, rel=1e-3)


def test_the_founding_float32_rate_is_impossible():
    found = judge(claim(309, "fp32"))
    assert found.verdict == IMPOSSIBLE
    assert "309 img/s of resnet50 v1.5 is 2.53 TFLOP/s" in found.sentence
    assert "1.41 TFLOP/s (derived)" in found.sentence
    assert "at most 172 img/s, or 238 with Winograd's algorithm" in found.sentence
    assert found.sentence.endswith("not possible in FP32 on the GPU alone")


def test_the_published_1941_cannot_be_fp16_on_the_gpu_alone():
    found = judge(claim(1941, "fp16"))
    assert found.verdict == IMPOSSIBLE
    assert "1,941 img/s of resnet50 v1.5 is 15.9 TFLOP/s" in found.sentence
    assert "above the peak of 11 TFLOP/s (derived)" in found.sentence
    assert found.sentence.endswith("not possible in FP16 on the GPU alone")


def test_a_rate_below_the_int8_peak_is_possible():
    assert judge(claim(1941, "int8")).verdict == POSSIBLE
    assert judge(claim(1941, "int8", dlas=2)).claim.peak.value == pytest.approx(32e12)


def test_dlas_alone_have_their_own_peak():
    assert judge(claim(2000, "int8", gpus=0, dlas=2)).verdict == IMPOSSIBLE
    assert "2 DLAs alone" in judge(claim(2000, "int8", gpus=0, dlas=2)).sentence
    assert "a DLA alone" in judge(claim(300, "int8", gpus=0, dlas=1)).sentence


def test_a_rate_that_needs_winograd_is_unlikely():
    found = judge(claim(200, "fp32"))
    assert found.verdict == UNLIKELY
    assert "84% of the peak" in found.sentence


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp8", "int4"])
def test_without_a_peak_the_verdict_is_unknown(precision):
    found = judge(claim(1e9, precision))
    assert found.verdict == UNKNOWN
    assert "peak of the GPU alone" in found.sentence


def test_zeros_may_have_been_skipped_where_the_source_does_not_say_that_they_were_not():
    (h200,) = devices_named("h200")
    flops = item_flops("resnet50", "v1.5")[0]
    dense = Claim(300_000, "int8", h200, flops)
    assert judge(dense).verdict == IMPOSSIBLE
    assert judge(attrs.evolve(dense, sparsity=None)).verdict == POSSIBLE
    assert "with 2:4 sparsity" in judge(attrs.evolve(dense, sparsity="2:4")).sentence


def test_a_peak_that_nobody_cites_is_labelled_in_the_sentence():
    (a30,) = devices_named("a30")
    assert "(unverified)" in judge(Claim(1, "int8", a30, RESNET50)).sentence
    (t4,) = devices_named("t4")
    assert "(" not in judge(Claim(1, "int8", t4, RESNET50)).sentence


def test_the_founding_rows_that_are_labelled_float32_are_impossible_and_no_others():
    found = published.find(device="agx xavier", batch=100)
    verdicts = {r.id.rpartition("-b100-")[2]: judgements_of(r)[0].verdict for r in found}
    assert verdicts == {
        "amp-o3": POSSIBLE,
        "amp-o2": POSSIBLE,
        "amp-o1": POSSIBLE,
        "amp-o0": IMPOSSIBLE,
        "float32": IMPOSSIBLE,
    }


def test_a_record_whose_variant_is_not_told_is_judged_for_each():
    found = judgements_of(published.get("nvidia-blog-agx-xavier-resnet50"))
    told = {(j.claim.flops.of, j.claim.precision, j.verdict) for j in found}
    assert told == {
        ("resnet50 v1", "fp16", UNLIKELY),
        ("resnet50 v1", "int8", POSSIBLE),
        ("resnet50 v1.5", "fp16", IMPOSSIBLE),
        ("resnet50 v1.5", "int8", POSSIBLE),
    }


def test_a_sum_over_engines_is_also_held_against_the_gpu_alone():
    found = judgements_of(published.get("mlperf-v0.7-agx-xavier-resnet50-offline"))
    assert [(j.claim.engines, j.claim.precision) for j in found] == [
        ("the GPU and 2 DLAs", "int8"),
        ("the GPU alone", "fp16"),
        ("the GPU alone", "int8"),
    ]
    assert [j.verdict for j in found] == [POSSIBLE, IMPOSSIBLE, POSSIBLE]


def test_of_devices_that_are_not_told_apart_the_fastest_is_taken():
    record = published.get("gist-v100-resnet50-b256-fp16")
    assert record.device == "V100"
    assert {j.claim.device.id for j in judgements_of(record)} == {"v100-sxm2"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "GH200 96GB"}, "the peaks of GH200 96GB are not known"),
        ({"model": "gpt-j"}, "FLOPs of gpt-j at 3x224x224 are not known"),
        ({"unit": "ms", "batch": None}, "its rate is not known"),
        ({"precision": None, "gpus": 0}, "neither its precision nor its engines"),
    ],
)
def test_what_cannot_be_judged_says_why(changes, says):
    record = attrs.evolve(published.get("mlperf-v0.7-t4-resnet50-offline"), **changes)
    (found,) = judgements_of(record)
    assert found.verdict == UNKNOWN
    assert says in found.sentence


def test_of_published_numbers_only_the_founding_labels_are_impossible():
    for record in published.everything():
        as_told = judgements_of(record)[0]
        if as_told.claim is not None and as_told.claim.precision == record.precision:
            doubtful = "doubtful" in record.precision_note
            assert (as_told.verdict == IMPOSSIBLE) == doubtful, record


ORDER = [POSSIBLE, UNLIKELY, IMPOSSIBLE]


@settings(deadline=None)
@given(
    st.sampled_from(all_devices()),
    st.sampled_from(entries()),
    st.sampled_from(["fp32", "tf32", "fp16", "int8", "mixed"]),
    st.floats(1e-3, 1e9),
    st.floats(1.0, 1e3),
)
def test_a_higher_rate_is_never_judged_more_plausible(device, entry, precision, rate, factor):
    lower = judge(Claim(rate, precision, device, entry.flops))
    higher = judge(Claim(rate * factor, precision, device, entry.flops))
    if UNKNOWN in (lower.verdict, higher.verdict):
        assert lower.verdict == higher.verdict
    else:
        assert ORDER.index(lower.verdict) <= ORDER.index(higher.verdict)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.name}-{entry.input}")
def test_the_least_is_between_a_quarter_and_all_of_what_is_usual(entry):
    assert entry.flops.usual / 4 <= entry.flops.least <= entry.flops.usual
    assert entry.winograd_gmacs <= entry.gmacs


def test_flops_of_a_measured_row_are_of_one_item():
    data = recorded("channels-50")
    facts = facts_of(data, data.results[0])
    found = measured_flops(facts)
    assert found.usual == pytest.approx(facts.evidence.flops / facts.row.batch_size)
    assert found.least <= found.usual
    nothing = attrs.evolve(facts, row=attrs.evolve(facts.row, batch_size=None))
    assert measured_flops(nothing) is None
