"""The ledger of a gap: what is measured, derived and assumed of it, and what is unexplained."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import precisionbench as pb
from made_up_results import CLEAN, HALF_CONV, comparison, comparison_data, conv, evidence
from precisionbench import published
from precisionbench.cli import main
from precisionbench.diagnosis.gap.derived import derived_factors
from precisionbench.diagnosis.gap.ledger import Factor, GapData, Kind, Rate, ledger
from precisionbench.diagnosis.gap.measured import fastest, measured_factors, measured_path
from precisionbench.diagnosis.gap.pairs import Step, factor_of_pairs, family
from precisionbench.diagnosis.gap.states import changes, shortest_path, state_of
from precisionbench.diagnosis.published_conditions import Conditions
from precisionbench.errors import (
    IncomparableError,
    RecordNotFoundError,
    RowNotFoundError,
    SpecError,
)
from precisionbench.published.record import Record
from precisionbench.reference_data.peaks import DeviceSpec, Peak, all_devices
from precisionbench.results import (
    Agreement,
    BackendResult,
    Block,
    ComparisonData,
    Gpu,
    Measurement,
    Preparation,
    TensorAgreement,
    TensorInfo,
    WorkloadInfo,
)
from precisionbench.statistics import Interval

RECORD = Path(__file__).parent.parent / "docs/records/h200-resnet50-batch100.json"
MLPERF = "mlperf-v4.1-h200-resnet50-offline"
XAVIER = "nvidia-blog-agx-xavier-resnet50"
CHANNELS_LAST = {"memory_format": "channels_last"}
COMMON = {"memory_format": "contiguous", "grad_mode": "inference_mode", "cuda_graph": False}
OF_BACKENDS: dict[str, dict[str, Any]] = {
    "eager": {"precision": "fp32"},
    "half": {"dtype": "float16", "fp32_layers": None},
    "autocast": {"dtype": "float16", "cache_enabled": True, "grad_mode": "no_grad"},
    "compile": {"dtype": "float32", "mode": "default", "freezing": False, "dynamic": None},
    "apex-amp": {"opt_level": "O1"},
    "torch2trt": {"precision": "fp32", "tf32": False, "workspace_bytes": 2**30, "dla_core": None},
}
needs_repository = pytest.mark.skipif(not RECORD.exists(), reason="the tests stand alone")


def row(spec: str, time_s: float, batch: int | None = 100, **options: Any) -> BackendResult:
    """A row whose calls take about so long, in twelve rounds of two replicas."""
    name = spec.partition(":")[0]
    blocks = tuple(
        Block(n, replica, replica, tuple(time_s * (1 + wobble) for wobble in (-1e-3, 0.0, 1e-3)))
        for n in range(12)
        for replica in range(2)
    )
    made = tuple(Preparation(1.0, 0.1, 5, replica) for replica in range(2))
    return BackendResult(
        spec,
        name,
        {**COMMON, **OF_BACKENDS.get(name, {}), **options},
        batch,
        Measurement("cuda_events", 5e-7, 1, made, blocks, "target"),
        Agreement(),
    )


def run(*rows: BackendResult, **changes: Any) -> ComparisonData:
    """A comparison of ResNet-50 on an H200, in common rounds."""
    images = TensorInfo("[0]", (100, 3, 224, 224), "float32")
    data = comparison_data(
        workload=WorkloadInfo("torchvision:resnet50", 25_557_032, (images,), 100),
        schedule="rounds",
        reference=rows[0].backend,
        results=rows,
        failures=(),
    )
    gpu = Gpu("NVIDIA H200", "9.0", 150_000_000_000, 132)
    environment = attrs.evolve(data.environment, gpu=gpu, jetson=None)
    return attrs.evolve(data, **{"environment": environment, **changes})


EAGER, HALF = row("eager", 30e-3), row("half", 10e-3)
SQUARE = (
    EAGER,
    HALF,
    row("eager:memory_format=channels_last", 40e-3, **CHANNELS_LAST),
    row("half:memory_format=channels_last", 6e-3, **CHANNELS_LAST),
)
TOP = "half:memory_format=channels_last"


def gap(data: ComparisonData, to: str | Record = MLPERF, **options: Any) -> pb.GapLedger:
    return pb.explain_gap(pb.Comparison(data), data.reference, to, **options)


def product(found: GapData) -> float:
    return math.prod(one.factor.value for one in found.factors)


def known_factor(name: str, value: float, kind: Kind = Kind.MEASURED) -> Factor:
    return Factor(name, kind, Interval(value, value, value), "a source")


# The ledger


def ranges(low: float, high: float) -> st.SearchStrategy[Interval]:
    numbers = st.lists(st.floats(low, high), min_size=3, max_size=3).map(sorted)
    return numbers.map(lambda ends: Interval(ends[1], ends[0], ends[2]))


factors = st.builds(
    Factor,
    name=st.text(max_size=5),
    kind=st.sampled_from([Kind.MEASURED, Kind.DERIVED, Kind.ASSUMED]),
    factor=ranges(1e-3, 1e3),
    source=st.just(""),
)
rates = st.builds(Rate, st.just("one"), ranges(1e-3, 1e9), st.just(""))


@pytest.mark.uncounted
@given(rates, rates, st.lists(factors, max_size=12))
def test_the_rows_multiply_to_the_gap_whatever_the_factors(mine, theirs, rows):
    found = ledger(mine, theirs, rows)
    assert found.gap == theirs.items_per_s.value / mine.items_per_s.value
    assert product(found) == pytest.approx(found.gap, rel=1e-9)
    rest = found.unexplained
    assert rest.kind is Kind.UNEXPLAINED
    assert rest is found.factors[-1]
    assert rest.factor.low <= rest.factor.value <= rest.factor.high


def test_what_is_unexplained_ranges_over_all_that_the_others_may_be():
    """At its smallest where the known factors are at their largest, and the gap is smallest."""
    mine = Rate("mine", Interval(100, 90, 110), "")
    theirs = Rate("theirs", Interval(1000, 1000, 1000), "")
    rows = [Factor("half", Kind.MEASURED, Interval(2, 1.5, 2.5), "a run")]
    rest = ledger(mine, theirs, rows).unexplained.factor
    assert rest.value == pytest.approx(5)
    assert rest.low == pytest.approx(1000 / 110 / 2.5)
    assert rest.high == pytest.approx(1000 / 90 / 1.5)


def of_kinds(gap: float, **parts: float) -> GapData:
    one = Rate("one", Interval(1, 1, 1), "")
    rows = [known_factor(name, value, Kind(name)) for name, value in parts.items()]
    return ledger(one, attrs.evolve(one, items_per_s=Interval(gap, gap, gap)), rows)


def test_a_factor_that_is_called_unexplained_is_refused():
    with pytest.raises(SpecError, match="'rest' has the kind unexplained; leave it out"):
        gap(run(EAGER), factors=[known_factor("rest", 2.0, Kind.UNEXPLAINED)])


@pytest.mark.parametrize(
    "factor",
    [
        Interval(0.0, 0.0, 0.0),
        Interval(-1.0, -1.0, -1.0),
        Interval(3.0, 1.0, 2.0),
        Interval(1.0, 1.0, math.inf),
        Interval(math.nan, math.nan, math.nan),
    ],
)
def test_a_factor_that_is_no_number_in_its_range_is_refused(factor):
    with pytest.raises(SpecError, match=r"the factor 'x' cannot be .* give a number above 0"):
        Factor("x", Kind.ASSUMED, factor, "")


def test_shares_count_factors_above_and_below_one_alike():
    found = of_kinds(1.0, measured=8.0, assumed=0.5)
    assert found.share(Kind.MEASURED) == pytest.approx(3 / 6)
    assert found.share(Kind.ASSUMED) == pytest.approx(1 / 6)
    assert found.share(Kind.UNEXPLAINED) == pytest.approx(2 / 6)
    assert of_kinds(1.0).share(Kind.MEASURED) == 0.0, "there is no way at all"


@pytest.mark.parametrize(
    ("parts", "is_warned"),
    [
        ({"measured": 4.0, "assumed": 3.9}, False),
        ({"measured": 4.0, "assumed": 4.1}, True),
        ({"measured": 3.9}, True),
        ({"derived": 4.1}, False),
        ({"measured": 8.0, "assumed": 1.5, "derived": 2.0}, False),
    ],
)
def test_a_ledger_that_is_more_than_half_assumed_says_so_in_its_first_line(parts, is_warned):
    """Of a gap of 16; what is unexplained counts like what is assumed."""
    found = of_kinds(16.0, **parts)
    text = pb.GapLedger(**{f.name: getattr(found, f.name) for f in attrs.fields(GapData)})
    assert str(text).startswith("Mostly assumed: ") == is_warned
    assert text.to_markdown().startswith("**Mostly assumed: ") == is_warned
    assert bool(found.warning) == is_warned


# From row to row


def test_a_state_holds_what_can_change_between_rows():
    half = state_of(row("half", 1e-3, **CHANNELS_LAST))
    assert (half["precision"], half["engine"]) == ("float16", "eager PyTorch")
    assert changes(state_of(EAGER), half) == (
        "precision: float32 to float16",
        "memory format: contiguous to channels_last",
    )
    graph = state_of(row("compile", 1e-3, mode="reduce-overhead", freezing=True))
    assert changes(state_of(EAGER), graph) == (
        "engine: eager PyTorch to torch.compile",
        "weights: variables to frozen",
        "launches: one by one to CUDA graph",
    )
    larger = state_of(row("eager", 1e-3, batch=200))
    assert changes(state_of(EAGER), larger) == ("batch: 100 to 200",)


def test_options_of_one_engine_are_part_of_the_engine_change():
    trt = row("torch2trt", 1e-3, precision="fp16")
    assert changes(state_of(HALF), state_of(trt)) == ("engine: eager PyTorch to TensorRT",)
    on_dla = row("torch2trt", 1e-3, precision="fp16", dla_core=0)
    assert changes(state_of(trt), state_of(on_dla)) == ("engine: TensorRT to TensorRT on a DLA",)
    autocast = row("autocast", 1e-3)
    assert changes(state_of(HALF), state_of(autocast)) == (
        "precision: float16 to mixed float16",
        "engine: eager PyTorch to autocast",
    )


def test_rows_that_differ_are_never_called_the_same():
    levels = [row("apex-amp", 1e-3, opt_level=level) for level in ("O1", "O2", "O3")]
    assert len({state_of(one)["precision"] for one in levels}) == 3
    dynamic = row("compile", 1e-3, dynamic=True)
    assert changes(state_of(row("compile", 1e-3)), state_of(dynamic)) == ("dynamic: off to True",)
    mine = state_of(row("mine", 1e-3))
    assert mine["precision"] == "not stated"
    partly = state_of(row("half", 1e-3, fp32_layers="head"))
    assert changes(state_of(HALF), partly) == (
        "precision: float16 to mixed float16 (head in float32)",
    )


def test_single_changes_are_preferred_to_several_at_once():
    transitions = shortest_path(SQUARE, "eager", TOP)
    assert [transition.after for transition in transitions] == ["half", TOP], (
        "of equal ways that of earlier rows"
    )
    assert all(len(transition.changes) == 1 for transition in transitions)
    other_order = [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]]
    assert shortest_path(other_order, "eager", TOP)[0].after == "eager:memory_format=channels_last"
    assert shortest_path(SQUARE, "eager", "eager") == ()


def test_several_changes_in_one_transition_are_all_named():
    data = run(EAGER, SQUARE[3])
    (one,) = measured_factors(data, "eager", TOP)
    assert one.name == "precision: float32 to float16; memory format: contiguous to channels_last"
    assert one.factor.value == pytest.approx(5, rel=1e-3)
    assert one.kind is Kind.MEASURED
    assert one.source == f"{TOP} over eager, interleaved in common rounds, 2026-11-23"


def test_a_repeated_row_is_named_as_such():
    data = run(EAGER, attrs.evolve(EAGER, backend="eager#2"))
    assert [one.name for one in measured_factors(data, "eager", "eager#2")] == [
        "repeated measurement"
    ]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)], ids=["half first", "layout first"])
def test_the_interaction_of_two_changes_is_a_factor(order):
    """Channels last slows float32 down and speeds half up: no order alone would be right."""
    data = run(*(SQUARE[place] for place in order))
    found = measured_factors(data, "eager", TOP)
    alone = {one.name: one.factor.value for one in found}
    assert alone == {
        "precision: float32 to float16": pytest.approx(3, rel=1e-3),
        "memory format: contiguous to channels_last": pytest.approx(0.75, rel=1e-3),
        "both together (precision and memory format)": pytest.approx(20 / 9, rel=1e-3),
    }
    assert math.prod(alone.values()) == pytest.approx(5, rel=1e-6), "as the two rows directly"
    both = found[-1].factor
    assert both.low <= both.value <= both.high
    assert "depends on the other" in found[-1].reason


def test_a_change_on_the_path_states_its_factor_as_the_first_change():
    slow = row("eager:batch_size=200", 50e-3, batch=200)
    fast = row("half:batch_size=200", 15e-3, batch=200)
    data = run(EAGER, HALF, slow, fast)
    batch = measured_factors(data, "eager", "half:batch_size=200")[-1]
    assert batch.name == "batch: 100 to 200"
    assert batch.factor.value == pytest.approx(200 / 15e-3 / (100 / 10e-3), rel=1e-3)
    assert batch.reason.startswith("as the first change its factor is 1.2x (")


def test_sequential_rows_state_that_drift_is_not_in_the_range():
    (one,) = measured_factors(run(EAGER, HALF, schedule="sequential"), "eager", "half")
    assert "not interleaved; the range excludes drift between them" in one.source


def overflowing(found: BackendResult) -> BackendResult:
    bad = TensorAgreement("", (4, 5), "float16", 1e-3, 0.9, 2e-3, 0.5, 7)
    return attrs.evolve(found, agreement=Agreement((bad,), ()))


def test_a_row_with_a_non_finite_output_is_neither_rung_nor_top():
    data = run(EAGER, overflowing(HALF), *SQUARE[2:])
    assert fastest(data) == TOP
    assert "half" not in {transition.after for transition in measured_path(data, "eager", TOP)}
    assert fastest(run(EAGER, overflowing(HALF))) == "eager"
    assert gap(run(EAGER, overflowing(HALF))).factors[0].kind is not Kind.MEASURED
    assert fastest(run(*map(overflowing, (EAGER, HALF)))) == "half", "none is sound"


# From published pairs


def record(id: str, value: float, **conditions: Any) -> Record:
    plain: dict[str, Any] = {
        "device": "t4",
        "model": "resnet50",
        "unit": "images/s",
        "metric": "gpu-compute",
        "status": "cited",
        "confidence": "high",
        "source_title": "a page",
        "source_url": f"https://example.org/{id}",
        "precision": "fp16",
        "batch": 1,
        "gpus": 1,
        "dlas": 0,
        "sparsity": "dense",
        "input": "3x224x224",
        "framework": "TensorRT 8.6",
        "software": "TensorRT 8.6",
        "power_mode": "MAXN",
    }
    return Record(id=id, value=value, **{**plain, **conditions})


TARGET = record("target", 4000, precision="int8", batch=8)
TO_INT8 = Step("precision", "fp16", "int8", "fp16 to int8")
PAIR = (record("a", 1000), record("b", 1500, precision="int8"))


def test_a_pair_of_the_same_device_makes_a_derived_factor():
    found = factor_of_pairs(TO_INT8, PAIR, TARGET)
    assert (found.kind, found.factor) == (Kind.DERIVED, Interval(1.5, 1.5, 1.5))
    assert found.source == "published pairs: a to b (https://example.org/b)"
    assert "a single published pair of unknown uncertainty" in found.reason
    assert "at batch 1, metric gpu-compute" in found.reason


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 2},
        {"dlas": 2},
        {"framework": "PyTorch eager"},
        {"metric": "offline"},
        {"sparsity": "2:4"},
        {"input": "3x300x300"},
        {"variant": "v1.5"},
        {"software": "TensorRT 10.2"},
        {"power_mode": "10W"},
        {"latency_limit_s": 0.01},
        {"device": "l4"},
        {"model": "resnet101"},
        {"status": "unverified"},
        {"unit": "ms", "batch": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_pair_differs_in_one_condition_only(other):
    """And numbers that nobody could verify are of no pair."""
    changed = attrs.evolve(PAIR[1], **other)
    assert factor_of_pairs(TO_INT8, (PAIR[0], changed), TARGET) is None


def test_unstated_conditions_are_equal_only_within_one_source():
    silent = tuple(attrs.evolve(one, software=None) for one in PAIR)
    found = factor_of_pairs(TO_INT8, silent, TARGET)
    assert "not stated by either: software" in found.reason
    apart = (silent[0], attrs.evolve(silent[1], source_title="another page"))
    assert factor_of_pairs(TO_INT8, apart, TARGET) is None
    assert factor_of_pairs(TO_INT8, (PAIR[0], attrs.evolve(PAIR[1], source_title="x")), TARGET)


def test_the_pairs_nearest_to_the_target_are_taken():
    near = (record("c", 3000, batch=8), record("d", 3600, batch=8, precision="int8"))
    found = factor_of_pairs(TO_INT8, (*PAIR, *near), TARGET)
    assert found.factor.value == pytest.approx(1.2)
    assert "c to d" in found.source


def test_equally_near_pairs_give_a_range_and_its_middle():
    more = [attrs.evolve(PAIR[1], id=f"b{n}", value=v) for n, v in enumerate((2000, 3000, 6000))]
    found = factor_of_pairs(TO_INT8, (*PAIR, *more), TARGET)
    assert found.factor == Interval(pytest.approx(3), 1.5, 6)
    assert found.source.endswith(" and 1 more")
    assert "uncertainty" not in found.reason


def test_pairs_of_other_devices_are_assumed_only():
    elsewhere = tuple(attrs.evolve(one, device="l4") for one in PAIR)
    assert factor_of_pairs(TO_INT8, elsewhere, TARGET) is None
    found = factor_of_pairs(TO_INT8, elsewhere, TARGET, of_others=True)
    assert found.kind is Kind.ASSUMED
    assert "pairs of other devices, because none is of this device" in found.reason
    assert factor_of_pairs(TO_INT8, PAIR, TARGET, of_others=True) is None


@pytest.mark.parametrize(
    ("framework", "expected"),
    [
        ("TensorRT (MLPerf LWIS harness)", "TensorRT"),
        ("TensorRT via torch2trt", "TensorRT"),
        ("PyTorch eager", "PyTorch eager"),
        ("PyTorch compiled", "PyTorch compiled"),
        ("", ""),
    ],
)
def test_frameworks_are_compared_without_versions(framework, expected):
    assert family(framework) == expected


# From what still differs


def measured_on(device: str | None = "t4", **conditions: Any) -> Conditions:
    plain = {"precision": "fp16", "batch": 1, "framework": "TensorRT", "sparsity": "dense"}
    return Conditions(device=device, **{**plain, "gpus": 1, "dlas": 0, **conditions})


def peaked(id: str, **peaks: float | tuple[float, str]) -> DeviceSpec:
    """A device with peaks, cited unless told otherwise."""
    found = {}
    for name, told in peaks.items():
        value, status = told if isinstance(told, tuple) else (told, "cited")
        found[name] = Peak(value, status, f"{id}'s page")
    return DeviceSpec(id, id.upper(), id, "8.0", 1, None, found)


T4 = peaked("t4", fp16=60.0, int8=120.0, bandwidth=300.0)
LARGE = peaked("large", fp16=600.0, int8=1200.0, bandwidth=1200.0)


def derive(measured, target, records=(), devices=(T4, T4)):
    return derived_factors(measured, target, records, devices)


def test_nothing_is_derived_where_nothing_differs():
    assert derive(measured_on(), record("same", 1000)) == ((), ())


def test_conditions_are_changed_one_after_another():
    target = record("goal", 1.0, precision="int8", batch=8, dlas=2, sparsity="2:4")
    names = [name for name, _ in derive(measured_on(framework="PyTorch eager"), target)[1]] + [
        one.name for one in derive(measured_on(framework="PyTorch eager"), target)[0]
    ]
    assert names == [
        "PyTorch eager to TensorRT",
        "batch 1 to 8",
        "2 DLAs in addition to the GPU",
        "fp16 to int8",
        "2:4 sparsity",
    ]


def test_a_device_factor_lies_between_the_ratios_of_peaks_and_bandwidths():
    (found,), unknown = derive(measured_on(), record("x", 1, device="large"), (), (T4, LARGE))
    assert found.name == "device: T4 to LARGE"
    assert found.kind is Kind.DERIVED
    assert (found.factor.low, found.factor.high) == (4, 10)
    assert found.factor.value == pytest.approx(math.sqrt(40))
    assert "t4's page [cited]" in found.source
    assert unknown == ()


def test_an_unverified_peak_makes_the_device_factor_assumed():
    doubtful = peaked("large", fp16=(600.0, "unverified"), bandwidth=1200.0)
    (found,), _ = derive(measured_on(), record("x", 1, device="large"), (), (T4, doubtful))
    assert found.kind is Kind.ASSUMED
    assert "[unverified]" in found.source


@pytest.mark.parametrize(
    ("devices", "conditions"),
    [
        ((None, LARGE), {}),
        ((T4, None), {}),
        ((T4, peaked("large", fp16=600.0)), {}),
        ((T4, LARGE), {"precision": None}),
    ],
)
def test_a_device_whose_peaks_are_not_known_is_part_of_what_is_unexplained(devices, conditions):
    found, unknown = derive(measured_on(**conditions), record("x", 1, device="large"), (), devices)
    assert found == ()
    assert unknown == (("device", "the peaks of one of the devices are not known"),)


def test_a_precision_factor_without_pairs_lies_between_1_and_the_peak_ratio():
    """Where in between nobody knows, so it is assumed, whatever the peaks are."""
    (found,), _ = derive(measured_on(batch=8), TARGET)
    assert found.kind is Kind.ASSUMED
    assert found.factor == Interval(pytest.approx(math.sqrt(2)), 1, 2)
    assert found.source == "peaks of T4: t4's page [cited]"
    assert "the middle of its range" in found.reason


def test_own_pairs_come_before_peaks_and_peaks_before_pairs_of_others():
    near = measured_on(batch=8)
    assert derive(near, TARGET, PAIR)[0][0].factor.value == 1.5
    elsewhere = tuple(attrs.evolve(one, device="l4") for one in PAIR)
    assert derive(near, TARGET, elsewhere)[0][0].source.startswith("peaks of")
    without = (T4, None)
    assert derive(near, TARGET, elsewhere, without)[0][0].source.startswith("published pairs")


def test_sparsity_is_worth_at_most_2x_without_a_published_pair():
    sparse = record("s", 1800, sparsity="2:4")
    (found,), _ = derive(measured_on(), sparse)
    assert (found.kind, found.factor.low, found.factor.high) == (Kind.ASSUMED, 1, 2)
    (found,), _ = derive(measured_on(), sparse, (record("a", 1000), sparse))
    assert (found.kind, found.factor.value) == (Kind.DERIVED, 1.8)
    assert derive(measured_on(sparsity="2:4"), sparse) == ((), ())


def test_every_bundled_pair_of_devices_with_peaks_has_a_factor():
    t4 = next(device for device in all_devices() if device.id == "t4")
    for device in all_devices():
        if device.id != "t4":
            target = record("x", 1, device=device.id)
            found, unknown = derived_factors(measured_on("t4"), target, (), (t4, device))
            assert len(found) + len(unknown) == 1, device.id


# All together


def test_a_gap_is_explained_from_the_row_to_the_published_number():
    found = gap(run(*SQUARE))
    assert found.measured.items_per_s.value == pytest.approx(100 / 30e-3, rel=1e-3)
    assert found.published.items_per_s.value == 94_620
    assert [one.name for one in found.factors] == [
        "precision: float32 to float16",
        "memory format: contiguous to channels_last",
        "both together (precision and memory format)",
        "PyTorch eager to TensorRT",
        "fp16 to int8",
        "unexplained",
    ]
    assert product(found) == pytest.approx(found.gap, rel=1e-9)
    assert "the batch differs (published: 2048; measured: 100)" in found.differences
    assert any("batch 100 to 2048: no published pair" in note for note in found.notes)


def test_measuring_ends_at_the_row_that_is_asked_for():
    found = gap(run(*SQUARE), through="half")
    assert "memory format" not in " ".join(one.name for one in found.factors)


def test_the_published_batch_is_measured_by_a_row_of_that_batch():
    at = row("half:batch_size=2048", 0.1, batch=2048)
    found = gap(run(EAGER, HALF, at))
    names = [one.name for one in found.factors]
    assert "batch: 100 to 2048" in names
    assert not any("batch 100 to 2048" in note for note in found.notes)
    assert product(found) == pytest.approx(found.gap, rel=1e-9)


def test_a_callers_factor_replaces_the_derived_one_of_its_name():
    mine = known_factor("fp16 to int8", 1.8)
    batch = known_factor("batch 100 to 2048", 1.2, Kind.ASSUMED)
    found = gap(run(*SQUARE), factors=[mine, batch])
    rows = [one for one in found.factors if one.name == "fp16 to int8"]
    assert rows == [mine]
    assert not any("batch 100 to 2048" in note for note in found.notes), "it is known now"
    assert product(found) == pytest.approx(found.gap, rel=1e-9)


def test_a_factor_that_was_measured_already_is_refused():
    mine = known_factor("precision: float32 to float16", 3.0)
    with pytest.raises(
        SpecError, match=r"'precision: float32 to float16' is already in the ledger"
    ):
        gap(run(*SQUARE), factors=[mine])
    with pytest.raises(SpecError, match="would count twice"):
        gap(run(EAGER), factors=[known_factor("a fan", 1.1), known_factor("a fan", 1.1)])


def test_a_kind_may_be_written_as_a_word_and_a_wrong_one_is_refused():
    there = pb.Interval(2, 1, 3)
    assert pb.Factor("a fan", "assumed", there, "a guess").kind is Kind.ASSUMED
    with pytest.raises(SpecError, match="the factor 'a fan' is a tuple; give pb.Interval"):
        pb.Factor("a fan", "assumed", (1.0, 0.9, 1.1), "a guess")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="did you mean 'measured'"):
        pb.Factor("a fan", "mesured", there, "a guess")


def test_a_published_number_that_is_neither_an_id_nor_a_record_is_refused():
    with pytest.raises(SpecError, match="published is 3; give an id"):
        gap(run(EAGER), 3)


def test_an_id_is_never_cut_in_the_table():
    record = attrs.evolve(published.get(MLPERF), id="a-number-whose-id-is-longer-than-its-column")
    text = str(gap(run(EAGER), record))
    assert record.id in text
    assert "(its id is below)" in text


def test_a_source_of_two_peaks_is_listed_once():
    cpu = attrs.evolve(run(EAGER).environment, gpu=Gpu("Jetson AGX Xavier", "7.2", 0, 8))
    (device,) = (one for one in gap(run(EAGER, environment=cpu)).factors if "device" in one.name)
    sources = device.source.removeprefix("peaks: ").split("; ")
    assert len(sources) == len(set(sources))


@needs_repository
def test_reported_rows_are_not_called_measured_and_both_explanations_agree():
    data = pb.load(RECORD.parent / "xavier-2020-reported.json")
    answers = {one.question: one.answer for one in pb.diagnose(data).answers}
    assert "Not measured here" in answers["Are the timings right?"]
    assert "the launch time was not measured" in " ".join(answers.values())
    assert "eager is labelled float32 but ran in another precision" in " ".join(answers.values())
    found = pb.explain_gap(data, "eager", XAVIER, through="apex-amp:opt_level=O3")
    names = [one.name for one in found.factors]
    assert names[:3] == [
        "the baseline is not float32",
        "engine: eager PyTorch to apex-amp",
        "as labelled: precision: float32 to float16",
    ]
    assert {one.kind for one in found.factors[:3]} == {Kind.DERIVED}
    assert "Nothing of it was measured here" in str(found)


def test_a_device_of_ones_own_measurement_is_no_longer_unknown():
    cpu = attrs.evolve(run(EAGER).environment, gpu=None)
    data = run(EAGER, environment=cpu)
    assert any("device: the peaks of one of" in note for note in gap(data).notes)
    told = gap(data, factors=[known_factor("device: my CPU to an H200", 900.0, Kind.ASSUMED)])
    assert not any("device: the peaks of one of" in note for note in told.notes)


def leaked(**change: Any) -> ComparisonData:
    """The founding case: a float32 row that ran in half."""
    base = evidence(conv(0.3e-3, "float16", HALF_CONV))
    data = comparison(base, CLEAN["half"], base_row={"batch_size": 32, **change})
    images = TensorInfo("[0]", (32, 3, 224, 224), "float32")
    workload = attrs.evolve(data.workload, batch_size=32, inputs=(images,))
    return attrs.evolve(data, workload=workload)


def test_a_false_label_is_the_first_row_confirmed_and_of_factor_1():
    first = gap(leaked()).factors[0]
    assert first.name == "the baseline is not float32"
    assert (first.factor, first.is_confirmed) == (Interval(1, 1, 1), True)
    assert "it ran in float16" in first.reason
    assert "labelled float32" in first.source


def test_a_claim_above_the_peak_is_a_false_label_too():
    """6,250,000 img/s in float32 are 51 PFLOP/s."""
    first = gap(run(row("eager", 16e-6))).factors[0]
    assert first.name == "the baseline is not float32"
    assert first.is_confirmed
    assert "not possible in FP32" in first.source
    assert "the precision that it ran in is not known" in first.reason


def test_a_rate_a_little_above_the_peak_may_be_a_faster_clock():
    """The peak of 67 TFLOP/s is 11,300 img/s with Winograd's algorithm; boards differ."""
    a_little, well_above = (gap(run(row("eager", 100 / rate))) for rate in (12_500, 16_000))
    assert not a_little.factors[0].is_confirmed
    assert well_above.factors[0].is_confirmed


def test_a_row_with_a_true_label_has_no_label_factor():
    assert not any(one.is_confirmed for one in gap(run(*SQUARE)).factors)


# What is refused, and what is allowed with a word


def renamed(model: str) -> ComparisonData:
    data = run(*SQUARE)
    return attrs.evolve(data, workload=attrs.evolve(data.workload, model=model))


@pytest.mark.parametrize("model", ["torchvision:vit_b_16", "vit_b_16", "torchvision:resnet18"])
def test_another_model_is_refused_and_both_are_named(model):
    with pytest.raises(IncomparableError, match=rf"is of resnet50, and {model} was measured"):
        gap(renamed(model))


def with_input(*shape: int, model: str = "torchvision:resnet50") -> ComparisonData:
    data = run(*SQUARE)
    workload = WorkloadInfo(model, 10, (TensorInfo("[0]", (100, *shape), "float32"),), 100)
    return attrs.evolve(data, workload=workload)


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ("Sequential", (256,), "256"),
        ("torchvision:resnet50", (3, 32, 32), "3x32x32"),
    ],
)
def test_another_shape_of_input_is_refused_and_both_are_named(model, shape, said):
    with pytest.raises(
        IncomparableError,
        match=rf"is of resnet50 with inputs of 3x224x224, and {model} was measured with inputs of "
        rf"{said}; measure resnet50 with inputs of 3x224x224",
    ):
        gap(with_input(*shape, model=model))


def test_inputs_may_be_stored_with_the_channels_last():
    assert gap(with_input(224, 224, 3)).gap == gap(run(*SQUARE)).gap


@pytest.mark.parametrize("model", ["torchvision:resnet50", "ResNet-50 v1.5", "resnet50"])
def test_the_same_model_in_another_writing_is_compared(model):
    assert not any("whether" in note for note in gap(renamed(model)).notes)


@pytest.mark.parametrize("model", ["Net", "my_models:build", "<lambda>"])
def test_a_model_of_unknown_name_is_compared_with_a_note(model):
    found = gap(renamed(model))
    assert f"not known whether {model} is resnet50; the ledger is valid only if it is" in (
        found.notes
    )
    assert any("not known whether the model is the same" in one for one in found.differences)


def test_a_latency_without_batch_is_no_rate():
    latency = attrs.evolve(published.get(MLPERF), id="slow", unit="ms", batch=None)
    with pytest.raises(IncomparableError, match="slow is a latency of unknown batch size"):
        gap(run(*SQUARE), latency)


def test_a_latency_with_a_batch_is_a_rate():
    latency = attrs.evolve(published.get(MLPERF), unit="ms", value=10.0, batch=32)
    assert gap(run(*SQUARE), latency).published.items_per_s.value == 3200


def test_a_row_of_unknown_batch_is_no_rate():
    with pytest.raises(IncomparableError, match="eager has no rate.*measure it with a batch size"):
        gap(run(row("eager", 1e-3, batch=None)))


def test_unknown_ids_and_rows_are_answered_with_the_nearest():
    with pytest.raises(RecordNotFoundError, match=f"did you mean .*{MLPERF}"):
        gap(run(*SQUARE), "mlperf-v4.1-h200-resnet50-ofline")
    with pytest.raises(RowNotFoundError, match="half"):
        gap(run(*SQUARE), through="hlaf")


# As it is read


def test_the_text_is_80_columns_wide_but_for_addresses():
    text = str(gap(run(*SQUARE)))
    long = [line for line in text.splitlines() if len(line) > 80]
    assert long, "some address is longer"
    assert all(re.fullmatch(r" *\(?https?://\S+", line) for line in long), long
    url = published.get(MLPERF).source_url
    assert len(url) > 100
    assert url in text, "it is not cut"


def test_the_published_number_stands_on_top_and_the_measured_one_below():
    lines = str(gap(run(*SQUARE))).splitlines()
    top = next(n for n, line in enumerate(lines) if line.startswith(" 94,620 "))
    bottom = next(n for n, line in enumerate(lines) if "eager, batch 100" in line)
    assert "published" in lines[top]
    assert "measured" in lines[bottom]
    assert top < bottom
    assert "…" not in "\n".join(lines), "ids are folded, not cut"


def test_the_summary_is_five_sentences():
    text = str(gap(run(*SQUARE))).partition("Check against peaks")[0]
    said = " ".join(text[text.index("3,333 items/s (eager") :].split())
    assert len(re.findall(r"[.](?= |$)", said)) == 5, said
    assert "a gap of 28.4x" in said
    assert "5x of it was measured here" in said
    assert "is unexplained" in said
    assert "conditions, which are listed below" in said


def test_markdown_has_a_row_for_each_factor_and_no_markup_of_names():
    data = run(attrs.evolve(EAGER, backend="eager|<b>*x*"))
    text = gap(data).to_markdown()
    assert "| items/s | factor | range | how | what |" in text
    assert text.count("\n| ") == 1 + len(gap(data).factors) + 2
    assert "<b>" not in text
    assert "eager\\|" in text
    whole = gap(run(*SQUARE)).to_markdown()
    assert f" <{published.get(MLPERF).source_url}> \\[cited\\]" in whole, "addresses are whole"


def test_confirmed_factors_are_marked():
    assert "| confirmed |" in gap(leaked()).to_markdown()


def test_an_unverified_number_is_called_so():
    found = gap(run(*SQUARE), XAVIER)
    assert "[unverified]" in found.published.source
    assert any("the published number is unverified" in note for note in found.notes)
    assert any("not possible in FP16 on the GPU alone" in claim for claim in found.claims)
    assert any(one.name.startswith("device: NVIDIA H200") for one in found.factors)


@pytest.fixture
def saved(tmp_path) -> str:
    pb.Comparison(run(*SQUARE)).save(tmp_path / "r.json")
    return str(tmp_path / "r.json")


def command(*args: str) -> Result:
    return CliRunner().invoke(main, ["explain", *args])


def test_the_command_prints_the_ledger_or_markdown_or_json(saved):
    done = command(saved, "--to", MLPERF)
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip() == str(gap(run(*SQUARE)))
    assert "| items/s |" in command(saved, "--to", MLPERF, "--markdown").stdout
    document = json.loads(command(saved, "--to", MLPERF, "-b", "half", "--json").stdout)
    assert (document["format"], document["version"]) == ("precisionbench.gap", 1)
    assert document["gap"] == pytest.approx(9.462, rel=1e-3)
    assert document["warning"].startswith("Mostly assumed")
    values = [one["factor"]["value"] for one in document["factors"]]
    assert math.prod(values) == pytest.approx(document["gap"], rel=1e-9)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--to", "mlperf-v4.1-h200"], "did you mean"),
        (["--to", MLPERF, "-b", "haft"], "half"),
        (["--to", MLPERF, "--experiments", "auto"], "--to runs nothing"),
        (["--through", "half"], "require --to"),
        (["--to", published.find(model="bert-large")[0].id], "and torchvision:resnet50 was"),
    ],
)
def test_bad_input_ends_the_command_with_a_sentence(saved, args, said):
    done = command(saved, *args)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_gap_is_explained_without_torch(saved):
    code = f"""
import sys
import precisionbench as pb
print(pb.explain_gap(pb.load({saved!r}), "eager", {MLPERF!r}))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_html_report_draws_the_gap(tmp_path):
    found = gap(run(*SQUARE))
    pb.Comparison(run(*SQUARE)).to_html(tmp_path / "r.html", ledger=found)
    assert 'id="gap"' in (tmp_path / "r.html").read_text()
    pb.Comparison(run(*SQUARE)).to_html(tmp_path / "rows.html", ledger=found.rows)
    assert 'id="gap"' in (tmp_path / "rows.html").read_text()


def test_a_path_of_a_result_file_will_do_for_a_comparison(saved):
    assert pb.explain_gap(saved, "eager", MLPERF) == pb.explain_gap(pb.load(saved), "eager", MLPERF)
    assert pb.diagnose(saved) == pb.diagnose(pb.load(saved))
    assert pb.diagnose(Path(saved)) == pb.diagnose(saved)
    with pytest.raises(pb.errors.ResultFormatError, match="there is no file"):
        pb.diagnose("no.json")
    with pytest.raises(SpecError, match="the comparison is a NoneType; give what pb.compare"):
        pb.explain_gap(None, "eager", MLPERF)


def test_the_command_writes_the_gap_or_the_diagnosis_into_a_report(saved, tmp_path):
    html = tmp_path / "gap.html"
    done = command(saved, "--to", MLPERF, "--html", str(html))
    assert done.exit_code == 0, done.output
    assert done.stdout == command(saved, "--to", MLPERF).stdout
    assert 'id="gap"' in html.read_text()
    again = command(saved, "--html", str(html))
    assert again.exit_code == 2
    assert "exists; choose another name" in again.output
    assert command(saved, "--html", str(html), "--overwrite").exit_code == 0
    assert 'id="gap"' not in html.read_text()
    assert "--overwrite requires --html" in command(saved, "--overwrite").output


@needs_repository
def test_a_measured_record_is_explained_to_the_last_factor():
    found = pb.explain_gap(pb.load(RECORD), "eager", MLPERF)
    assert found.gap == pytest.approx(29.8, rel=1e-2)
    assert product(found) == pytest.approx(found.gap, rel=1e-9)
    kinds = [one.kind for one in found.factors]
    assert kinds[:2] == [Kind.MEASURED] * 2
    assert kinds[-1] is Kind.UNEXPLAINED
    assert str(found).startswith("Mostly assumed: ")


@pytest.mark.uncounted
@pytest.mark.parametrize("id", [one.id for one in published.find(model="resnet50")])
def test_every_published_number_of_the_model_can_be_explained_or_is_refused(id):
    """Whatever device, batch, engines and metric: the rows multiply to the gap."""
    target = published.get(id)
    if target.items_per_s is None:
        with pytest.raises(IncomparableError):
            gap(run(EAGER, HALF), target)
        return
    found = gap(run(EAGER, HALF), target)
    assert product(found) == pytest.approx(found.gap, rel=1e-9)
    assert str(found)
