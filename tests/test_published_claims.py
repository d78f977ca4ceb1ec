"""Contradictions of published numbers: what is found in made-up sources and in the real ones."""

from __future__ import annotations

import runpy
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from precisionbench import published
from precisionbench.cli import main
from precisionbench.diagnosis.claims_check import KINDS, contradictions
from precisionbench.diagnosis.gap.pairs import Step, factor_of_pairs
from precisionbench.published import Record

T4 = published.get("mlperf-v0.7-t4-resnet50-offline")
OFFLINE = attrs.evolve(T4, id="offline", value=10_000.0, gpus=2, notes="one system", batch=None)
STREAM = attrs.evolve(OFFLINE, unit="ms")
SINGLE = attrs.evolve(STREAM, id="single", metric="single-stream", value=0.5, batch=1)
MULTI = attrs.evolve(STREAM, id="multi", metric="multi-stream", value=2.0, batch=8)


def kinds(*records: Record) -> dict[str, list[str]]:
    """The kinds of what contradicts each record."""
    return {id: [r.kind for r in found] for id, found in contradictions(records).items()}


def test_numbers_that_agree_are_not_contradicted():
    assert kinds(OFFLINE, SINGLE, MULTI) == {}


@pytest.mark.parametrize(
    ("device", "precision", "is_possible"),
    [
        ("l4", "fp4", False),
        ("l40s", "fp4", False),
        ("h200", "fp4", False),
        ("b200", "fp4", True),
        ("a100-sxm4-80gb", "fp8", False),
        ("h100-sxm", "fp8", True),
        ("t4", "bf16", False),
        ("a30", "bf16", True),
        ("V100", "tf32", False),
        ("t4", "int4", True),  # weights, usually; and tensor cores of some devices have it
        ("an unknown accelerator", "fp4", True),
    ],
)
def test_a_device_without_arithmetic_in_a_precision(device, precision, is_possible):
    record = attrs.evolve(OFFLINE, device=device, precision=precision, value=1.0)
    found = contradictions([record]).get("offline", ())
    assert (not found) == is_possible
    assert all(one.kind == "arithmetic" and one.verdict == "impossible" for one in found)


@pytest.mark.parametrize("value", [200_000.0, 400_000.0])
def test_a_rate_above_the_peak(value):
    (found,) = contradictions([attrs.evolve(OFFLINE, value=value)])["offline"]
    assert found.kind == "peak"
    assert "above the peak of 130 TOP/s" in found.sentence


def test_a_model_of_unknown_flops_is_judged_by_what_its_source_states():
    record = attrs.evolve(OFFLINE, model="my-net", gmacs=4.0, value=200_000.0)
    assert kinds(record) == {"offline": ["peak"]}
    assert kinds(attrs.evolve(record, gmacs=0.1)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vgg16"},
        {"device": "l4"},
        {"precision": "fp16"},
        {"input": "3x320x320"},
        {"metric": "server"},
    ],
)
def test_a_row_copied_from_another(change):
    one = attrs.evolve(OFFLINE, value=5123.7)
    other = attrs.evolve(one, id="other", **change)
    assert kinds(one, other) == {"offline": ["copied"], "other": ["copied"]}
    assert kinds(one, attrs.evolve(other, source_title="another source")) == {}
    assert kinds(*(attrs.evolve(r, value=5100.0) for r in (one, other))) == {}  # a round figure


def test_one_run_for_two_accuracy_targets_is_not_copied():
    one = attrs.evolve(OFFLINE, value=5123.7, model="bert-large-squad-99")
    assert kinds(one, attrs.evolve(one, id="other", model="bert-large-squad-99.9")) == {}


def test_a_resubmission_of_the_same_result_is_not_copied():
    one = attrs.evolve(OFFLINE, value=5123.7)
    assert kinds(one, attrs.evolve(one, id="other", notes="another submitter")) == {}


def test_the_copy_is_the_row_that_contradicts_its_source():
    right = attrs.evolve(OFFLINE, model="vgg16", value=537.89)
    half = attrs.evolve(OFFLINE, id="half", precision="fp16", value=9.28)
    copy = attrs.evolve(OFFLINE, id="copy", value=537.89)
    assert kinds(right, half, copy) == {"copy": ["gain", "copied"]}


@pytest.mark.parametrize(
    ("precision", "factor", "is_too_much"),
    [("fp16", 3.9, False), ("fp16", 5.0, True), ("fp32", 30.0, False), ("fp32", 80.0, True)],
)
def test_what_a_lower_precision_can_gain(precision, factor, is_too_much):
    other = attrs.evolve(OFFLINE, id="other", precision=precision, value=OFFLINE.value / factor)
    assert kinds(OFFLINE, other) == ({"offline": ["gain"]} if is_too_much else {})


@pytest.mark.parametrize(
    ("offline", "single", "multi", "contradicted"),
    [
        (10_000.0, 1.0, 1.0, {"single", "multi"}),  # 8 samples take as long as one
        (1_000.0, 0.5, 10.0, {"single"}),  # 2,000/s alone, 500/s of each in Offline
        (2_000.0, 1.5, 2.0, {"multi"}),  # 4,000/s of both GPUs alone, and 2,000 in Offline
        (12_000.0, 20.0, 30.0, {"single"}),  # 120 samples in flight
    ],
)
def test_latencies_and_rates_that_contradict_each_other(offline, single, multi, contradicted):
    found = kinds(
        attrs.evolve(OFFLINE, value=offline),
        attrs.evolve(SINGLE, value=single),
        attrs.evolve(MULTI, value=multi),
    )
    assert found.keys() == contradicted
    assert all(set(one) == {"timing"} for one in found.values())


def test_other_systems_are_not_compared():
    slow = attrs.evolve(OFFLINE, value=100.0)
    for change in ({"notes": "another system"}, {"gpus": 1}, {"precision": "fp16"}):
        assert kinds(slow, attrs.evolve(SINGLE, **change)) == {}


@pytest.mark.parametrize(("latency_s", "agrees"), [(0.1, True), (0.05, False), (0.2, False)])
def test_a_rate_and_the_time_of_a_call_give_the_batch_size(latency_s, agrees):
    one = attrs.evolve(OFFLINE, gpus=1, value=640.0, batch=64, latency_s=latency_s)
    assert kinds(one) == ({} if agrees else {"offline": ["timing"]})


@pytest.mark.parametrize(("accuracy", "is_lost"), [(0.72, False), (0.5, True)])
def test_an_engine_that_lost_its_accuracy(accuracy, is_lost):
    half = attrs.evolve(OFFLINE, id="half", precision="fp16", accuracy="mAP50-95 0.74", value=3e3)
    whole = attrs.evolve(OFFLINE, accuracy=f"mAP50-95 {accuracy}")
    assert kinds(half, whole) == ({"offline": ["accuracy"]} if is_lost else {})


def test_what_contradicts_the_numbers_of_this_library():
    found = kinds(*published.search.bundled())
    assert {kind for kinds_of in found.values() for kind in kinds_of} == KINDS.keys()
    assert found["mlperf-v6.0-dell-l4x16-yolo-99-offline"] == ["arithmetic"]
    copy = "openvino-2024.1-intel-core-ultra-7-165h-igpu-ssd-resnet34-1200-int8"
    assert found[copy] == ["gain", "copied"]
    assert "mlperf-v5.0-h200-resnet50-offline" not in found
    assert len(found) < 25


def test_factors_do_not_come_from_doubtful_numbers():
    step = Step("precision", "fp16", "int8", "fp16 to int8")
    half = attrs.evolve(OFFLINE, id="half", precision="fp16", value=5_000.0)
    assert factor_of_pairs(step, [half, OFFLINE], OFFLINE) is not None
    doubtful = attrs.evolve(half, doubt="a reason")
    assert factor_of_pairs(step, [doubtful, OFFLINE], OFFLINE) is None


def test_the_command_lists_the_reasons():
    done = CliRunner().invoke(main, ["published", "--check", "--device", "l4"])
    assert done.exit_code == 0
    assert "does not compute in FP4, which requires 10.0" in " ".join(done.stdout.split())
    assert "3 of 35 numbers are contradicted or doubtful." in done.stdout
    id = "mlperf-v6.0-dell-l4x16-yolo-99-offline"
    card = CliRunner().invoke(main, ["published", "--id", id]).stdout
    assert "labelled FP4, and this device has no FP4" in " ".join(card.split())
    assert "Check against its device and its source" in card


def test_the_page_has_what_the_check_finds():
    script = Path(__file__).parents[1] / "docs" / "claims_page.py"
    if not script.exists():
        pytest.skip("the tests stand alone, without the repository")
    made = runpy.run_path(str(script))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), (
        "run python docs/claims_page.py"
    )
