"""What is told to differ before a published number and a measured row are compared."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up_results import HALF_CONV, comparison, comparison_data, conv, evidence
from precisionbench import published
from precisionbench.diagnosis.published_conditions import Conditions, conditions_of, differences
from precisionbench.published.record import CONDITIONS
from precisionbench.results import ComparisonData, DeviceState, Gpu, TensorInfo, WorkloadInfo

ALL = published.everything()
IMAGES = TensorInfo("[0]", (100, 3, 224, 224), "float32")


def on_an_h200() -> ComparisonData:
    """ResNet-50 in float32 and in half, at batch 100."""
    data = comparison_data()
    gpu = Gpu("NVIDIA H200", "9.0", 150_000_000_000, 132)
    environment = attrs.evolve(data.environment, gpu=gpu, torch="2.11.0", jetson=None)
    return attrs.evolve(
        data,
        workload=WorkloadInfo("torchvision:resnet50", 25_557_032, (IMAGES,), 100),
        environment=environment,
        results=tuple(attrs.evolve(row, batch_size=100) for row in data.results),
    )


H200 = on_an_h200()
MLPERF = published.get("mlperf-v4.1-h200-resnet50-offline")


def of_row(name: str) -> Conditions:
    return conditions_of(H200, next(row for row in H200.results if row.backend == name))


def known_by_condition(record, measured) -> dict[str, bool]:
    return {found.condition: found.is_known for found in differences(record, measured)}


def test_conditions_of_a_measured_row():
    assert of_row("half") == Conditions(
        device="h200-sxm",
        model="torchvision:resnet50",
        variant="v1.5",
        input="3x224x224",
        precision="fp16",
        batch=100,
        gpus=1,
        dlas=0,
        sparsity="dense",
        metric="device-time",
        framework="PyTorch eager",
        software="torch 2.11.0, CUDA 13.0, cuDNN 9.19.0",
    )


def test_everything_that_differs_from_mlperf_is_listed():
    assert known_by_condition(MLPERF, of_row("half")) == {
        "precision": True,
        "batch": True,
        "number of accelerators": True,
        "sparsity": False,
        "timed region": True,
        "framework": True,
        "software": True,
        "power mode": False,
    }


def test_a_difference_is_a_sentence_of_both():
    found = {d.condition: str(d) for d in differences(MLPERF, of_row("half"))}
    assert found["batch"] == "the batch differs (published: 2048; measured: 100)"
    assert found["sparsity"] == (
        "not known whether the sparsity is the same (published: not stated; measured: dense)"
    )
    assert "8; the rate is divided by this number" in found["number of accelerators"]


def test_a_record_of_an_unread_page_has_mostly_unknown_conditions():
    found = known_by_condition(published.get("nvidia-blog-agx-xavier-resnet50"), of_row("half"))
    assert found["device"] is True
    assert found["precision"] is True
    not_known = {"batch", "engines", "sparsity", "timed region", "model variant"}
    assert not any(found[condition] for condition in not_known)


def test_a_sum_over_engines_differs_from_a_gpu_alone():
    record = published.get("mlperf-v0.7-agx-xavier-resnet50-offline")
    found = {d.condition: d for d in differences(record, of_row("half"))}
    assert found["engines"].published == "GPU + 2 DLAs"
    assert found["engines"].measured == "GPU"
    assert "64 on the GPU and 32 on each DLA" in found["batch"].published


def test_a_doubtful_label_does_not_count_as_equal():
    record = published.get("founding-agxxavier-resnet50-b100-float32")
    found = known_by_condition(record, attrs.evolve(of_row("eager"), device="jetson-agx-xavier"))
    assert found["precision"] is False
    assert "device" not in found
    assert "batch" not in found


@pytest.mark.parametrize(
    ("clocks_hz", "said"), [((1.98e9, 1.98e9), "1980 MHz"), ((1.2e9, 1.98e9), "1200 to 1980 MHz")]
)
def test_clocks_are_one_figure_where_they_are_one(clocks_hz, said):
    data = comparison()
    (row, *_) = data.results
    blocks = tuple(
        attrs.evolve(block, state=DeviceState(sm_clock_hz=clock))
        for block, clock in zip(row.measurement.blocks, clocks_hz, strict=False)
    )
    row = attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))
    data = attrs.evolve(data, results=(row, *data.results[1:]))
    assert (conditions_of(data, row).power_mode or "").split(", ")[-1] == said


def test_a_mislabelled_row_states_what_it_ran_in():
    half = conv(dtype="float16", kernel=HALF_CONV)
    data = comparison(base=evidence(half))
    found = conditions_of(data, data.results[0])
    assert found.precision == "fp32"
    assert found.ran == "by its label, but it ran in float16"
    record = attrs.evolve(MLPERF, precision="fp32")
    differing = {d.condition: d for d in differences(record, found)}
    assert differing["precision"].is_known
    assert "it ran in float16" in differing["precision"].measured


def test_an_ambiguous_device_name_is_not_known_to_match():
    record = published.get("gist-v100-resnet50-b256-fp16")
    measured = attrs.evolve(of_row("half"), device="v100-pcie")
    assert known_by_condition(record, measured)["device"] is False
    assert known_by_condition(record, attrs.evolve(measured, device="t4"))["device"] is True


def test_a_class_name_does_not_identify_the_model():
    assert (
        known_by_condition(MLPERF, attrs.evolve(of_row("half"), model="ResNet"))["model"] is False
    )
    other = attrs.evolve(of_row("half"), model="torchvision:resnet18")
    assert known_by_condition(MLPERF, other)["model"] is True


def test_a_limit_on_latency_is_listed():
    limited = attrs.evolve(MLPERF, latency_limit_s=0.016)
    found = {d.condition: d for d in differences(limited, of_row("half"))}
    assert found["latency limit"].published == "no call longer than 16 ms"


def test_gpu_compute_time_equals_device_time():
    alone = attrs.evolve(MLPERF, metric="gpu-compute")
    assert "timed region" not in known_by_condition(alone, of_row("half"))


def test_unrecorded_conditions_are_unknown():
    data = comparison_data()
    row = data.results[0]
    found = conditions_of(data, row)
    assert found.device == "NVIDIA Test"
    assert found.power_mode is None
    several = attrs.evolve(data.workload, inputs=(TensorInfo("[0]", (4, 5), "float32"),) * 2)
    assert conditions_of(attrs.evolve(data, workload=several), row).input is None
    plugin = attrs.evolve(row, name="somebodys", options={})
    conditions = conditions_of(data, plugin)
    assert (conditions.precision, conditions.sparsity) == (None, None)
    assert conditions.framework == "somebodys"


def test_a_sequence_input_is_described_by_its_length():
    data = comparison_data()
    tokens = attrs.evolve(data.workload, inputs=(TensorInfo("[0]", (4, 384), "int64"),))
    found = conditions_of(attrs.evolve(data, workload=tokens), data.results[0])
    assert found.input == "sequence 384"


def test_recorded_clocks_are_in_the_power_mode():
    data = comparison_data()
    row = data.results[0]
    blocks = tuple(
        attrs.evolve(block, state=DeviceState(sm_clock_hz=1.3e9 + 1e7 * i))
        for i, block in enumerate(row.measurement.blocks[:2])
    )
    row = attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))
    environment = attrs.evolve(data.environment, power_mode="MAXN")
    found = conditions_of(attrs.evolve(data, environment=environment), row)
    assert found.power_mode.startswith("MAXN, 1300 to 13")


@pytest.mark.parametrize(("level", "precision"), [("O0", "fp32"), ("O1", "mixed"), ("O3", "fp16")])
def test_the_precision_of_each_apex_level(level, precision):
    data = comparison_data()
    row = attrs.evolve(data.results[0], name="apex-amp", options={"opt_level": level})
    assert conditions_of(data, row).precision == precision


def test_a_dla_is_counted():
    data = comparison_data()
    options = {"dla_core": 0, "int8_mode": True}
    row = attrs.evolve(data.results[0], name="torch2trt", options=options)
    assert conditions_of(data, row).dlas == 1


def as_published(record: published.Record) -> Conditions:
    """The conditions of a measurement that did just what the record says."""
    return Conditions(
        device=record.device,
        model=record.model,
        variant=record.variant or None,
        input=record.input,
        precision=record.precision,
        batch=record.batch,
        gpus=None if record.gpus is None else min(1, record.gpus),
        dlas=record.dlas,
        sparsity=record.sparsity,
        power_mode=record.power_mode,
        framework=record.framework or None,
        software=record.software,
    )


SAME = {"input": "input", "batch": "batch", "sparsity": "sparsity", "software": "software"}


def test_equal_conditions_differ_only_where_unstated():
    for record in ALL:
        check_equal_conditions(record)


def check_equal_conditions(record: published.Record) -> None:
    found = differences(record, as_published(record))
    allowed = {"timed region", "number of accelerators"}
    allowed |= {"batch"} if record.dla_batch else set()
    allowed |= {"latency limit"} if record.latency_limit_s else set()
    assert {d.condition for d in found if d.is_known} <= allowed, record
    for condition in record.unknown:
        if condition in SAME and condition in CONDITIONS:
            assert SAME[condition] in {d.condition for d in found if not d.is_known}


def test_unknown_conditions_are_all_listed_as_unknown():
    for record in ALL:
        check_unknown_conditions(record)


def check_unknown_conditions(record: published.Record) -> None:
    found = differences(record, Conditions())
    allowed = {"number of accelerators"} | ({"latency limit"} if record.latency_limit_s else set())
    assert {d.condition for d in found if d.is_known} <= allowed, record
    listed = {d.condition for d in found}
    assert {"device", "model", "input", "precision", "batch", "engines"} <= listed
    assert {"sparsity", "timed region", "software", "power mode"} <= listed


@settings(deadline=None)
@given(st.sampled_from(ALL), st.integers(1, 10**6))
def test_another_batch_is_always_listed(record, batch):
    measured = attrs.evolve(as_published(record), batch=batch)
    if batch != record.batch:
        assert "batch" in known_by_condition(record, measured)
