"""Published numbers: the file that comes with the library, how they are found, what is refused."""

from __future__ import annotations

import re

import pytest

import precisionbench as pb
from precisionbench import published
from precisionbench.devices import named
from precisionbench.errors import RecordNotFoundError, SpecError
from precisionbench.published.record import CONDITIONS

ALL = published.everything()
# Devices whose peaks are not known here, of which numbers were published all the same.
WITHOUT_PEAKS = {"GH200 96GB", "H100 NVL 94GB"}


@pytest.mark.parametrize("record", ALL, ids=lambda record: record.id)
def test_every_record_says_under_which_conditions_or_that_it_does_not_know(record):
    for condition in CONDITIONS:
        told = getattr(record, condition) is not None
        assert told != (condition in record.unknown), condition
    assert named(record.device) or record.device in WITHOUT_PEAKS
    assert re.fullmatch(r"https?://\S+", record.source_url)
    assert record.date == "" or "2018" <= record.date[:4] <= "2026"


def test_the_founding_rows_are_there_as_they_were_reported():
    found = published.find(device="agx xavier", model="resnet50", batch=100)
    assert [record.value for record in found] == [308, 310, 310, 308, 309]
    assert all(record.id.startswith("founding-agxxavier-resnet50-b100-") for record in found)
    assert {record.status for record in found} == {"reported"}
    assert all("not measured here" in record.notes for record in found)
    assert "doubtful" in found[-1].precision_note


def test_the_page_that_could_not_be_read_is_not_shown_as_fact():
    record = published.get("nvidia-blog-agx-xavier-resnet50")
    assert record.value == 1941
    assert record.status == "unverified"
    assert "page itself was not available" in record.notes
    assert record.engines == "not known"


@pytest.mark.parametrize(
    ("id", "per_accelerator"),
    [
        ("mlperf-v0.7-t4-resnet50-offline", 6036),
        ("mlperf-v3.0-a100-sxm4-80gb-resnet50-offline", 42379),
        ("mlperf-v4.1-h200-resnet50-offline", 94620),
        ("mlperf-v4.1-dell-h200-resnet50-offline", 96029),
        ("mlperf-v0.7-dividiti-agx-xavier-resnet50-offline", 1301),
    ],
)
def test_a_rate_is_told_for_one_accelerator(id, per_accelerator):
    assert published.get(id).value_per_accelerator == pytest.approx(per_accelerator, abs=1)


@pytest.mark.parametrize("name", ["agx xavier", "Jetson AGX Xavier (MAXN)", "jetson-agx-xavier"])
@pytest.mark.parametrize("model", ["resnet50", "torchvision:resnet50", "ResNet-50"])
def test_devices_and_models_are_found_by_any_of_their_names(name, model):
    found = pb.published.find(device=name, model=model)
    assert found == published.find(device="jetson-agx-xavier", model="resnet50")
    assert len(found) > 20


def test_a_variant_that_is_asked_for_leaves_out_what_does_not_tell_its_own():
    wanted = published.find(device="agx xavier", model="ResNet-50 v1.5")
    assert {record.variant for record in wanted} == {"v1.5"}
    assert len(wanted) < len(published.find(device="agx xavier", model="resnet50"))


def test_a_board_is_not_given_the_numbers_of_boards_that_are_merely_called_alike():
    some = published.find(device="a100-sxm4-80gb")
    every = published.find(device="A100")
    assert {record.device for record in some} == {"a100-sxm4-80gb"}
    assert {"A100 40GB", "a100-sxm4-80gb", "a100-pcie-40gb"} <= {r.device for r in every}


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ({"device": "agx xaver"}, "jetson-agx-xavier"),
        ({"model": "resnet51"}, "resnet50"),
        ({"precision": "int9"}, "int8"),
        ({"metric": "ofline"}, "offline"),
    ],
)
def test_what_nobody_knows_is_answered_with_near_matches(asked, near):
    with pytest.raises(SpecError, match=f"did you mean '{near}'"):
        published.find(**asked)


def test_an_unknown_id_is_answered_with_near_matches():
    with pytest.raises(RecordNotFoundError, match="mlperf-v4.1-h200-resnet50-offline"):
        published.get("mlperf-v4.1-h200-resnet50-ofline")
