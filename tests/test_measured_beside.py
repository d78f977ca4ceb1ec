"""Experiments whose changed row stands in the same comparison: it confirms or rules out."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import LAYOUT, comparison_data, conv, evidence, layer, measurement, recorded
from precisionbench.analysis.speedups import per_item_ratio, speedups
from precisionbench.backends import Backend
from precisionbench.backends.apex_amp import ApexAmp
from precisionbench.backends.autocast import Autocast
from precisionbench.backends.compile import Compile
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.experiments import COMMON_OPTIONS, ROW_CHANGES, changed_row
from precisionbench.diagnosis.findings import Finding, FindingStatus
from precisionbench.measure.rows import plan
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.evidence import Evidence, Kernel
from precisionbench.workflows.experiments import EXPERIMENTS, plan_experiments
from test_gap import CHANNELS_LAST, row, run

CL = "half:memory_format=channels_last"
# Half of the time of its convolution is spent in layout conversions.
CONVERTING = evidence(
    conv(1e-3, "float16", extra=(Kernel(LAYOUT, 2.0, 1e-3),)), layers=(layer(dtype="float16"),)
)


def half_beside(latency_s: float, seen: Evidence = CONVERTING, **changes) -> ComparisonData:
    """Half at 10 ms, suspected of layout conversions, beside half channels_last."""
    half = attrs.evolve(row("half", 10e-3), evidence=seen)
    rows = row("eager", 30e-3), half, row(CL, latency_s, **CHANNELS_LAST)
    return run(*rows, **changes)


def layout_finding(data: ComparisonData) -> Finding:
    (found,) = (f for f in diagnosis_of(data).findings if f.cause == "layout-conversions")
    return found


def test_a_faster_row_with_the_change_confirms_the_finding():
    data = half_beside(6e-3)
    found = layout_finding(data)
    assert found.status is FindingStatus.CONFIRMED
    assert found.experiment == "channels-last"
    assert found.factor == per_item_ratio(data, "half", CL)
    assert found.reason == f"measured in row {CL}"


def test_a_row_that_is_no_faster_rules_it_out():
    found = layout_finding(half_beside(11e-3))
    assert found.status is FindingStatus.RULED_OUT
    assert found.reason.endswith(f"measured in row {CL}")


def test_an_undecided_row_leaves_it_suspected_and_is_not_measured_again():
    data = half_beside(9.9e-3, noise_floor=0.02)
    found = layout_finding(data)
    assert found.status is FindingStatus.SUSPECTED
    assert "inconclusive; measured in row" in found.reason
    assert plan_experiments([found], {"half": Half()}, "auto", 100.0)[:2] == ([], [])
    asked, *_ = plan_experiments([found], {"half": Half()}, ["channels-last"], 100.0)
    assert [one.name for one in asked] == ["channels-last"]


def test_against_the_reference_the_factor_is_the_speed_up_of_the_table():
    data = half_beside(6e-3, reference="half")
    assert layout_finding(data).factor == speedups(data)[CL].interval


def test_rows_that_were_measured_one_after_another_prove_nothing():
    assert layout_finding(half_beside(6e-3, schedule="sequential")).status.value == "suspected"


def test_one_process_of_each_row_proves_nothing_where_their_variance_is_not_known():
    data = half_beside(6e-3)
    alone = tuple(
        attrs.evolve(one, measurement=measurement(*[one.latency.value] * 12))
        for one in data.results
    )
    data = attrs.evolve(data, results=alone)
    assert layout_finding(data).status is FindingStatus.SUSPECTED
    known = attrs.evolve(data, noise_floor=0.0025)
    assert layout_finding(known).status is FindingStatus.CONFIRMED


def test_an_experiment_asked_for_by_name_is_not_made_where_a_row_shows_it():
    found = layout_finding(half_beside(6e-3))
    plans, _, (note,) = plan_experiments([found], {"half": Half()}, ["channels-last"], 100.0)
    assert plans == []
    assert note.endswith("shows the result: channels-last (half)")


def test_the_layouts_of_a_recorded_comparison_are_decided_by_its_rows():
    found = {
        (f.cause, f.row): f for f in diagnosis_of(recorded("resnet50-five")).findings
    }  # half and half channels_last were measured in the same rounds
    assert found["layout-conversions", "half"].status is FindingStatus.CONFIRMED
    beside = found["layout-conversions", "half:dtype=bfloat16"]
    assert beside.status is FindingStatus.SUSPECTED  # channels_last in float16 alone


# --- which row it is ------------------------------------------------------------------------------


def result_of(backend: Backend, batch_size: int = 4) -> BackendResult:
    """A row of a backend as `compare` would name it."""
    ((measured,), _) = plan([backend], backend)
    return BackendResult(
        **measured.identity,
        batch_size=backend.batch_size or batch_size,
        measurement=measurement(1e-3),
    )


def rows_of(*backends: Backend) -> ComparisonData:
    results = tuple(map(result_of, backends))
    return comparison_data(results=results, failures=(), reference=results[0].backend)


_OF_OTHER_ROWS = ("cast-once", "contiguous")


@pytest.mark.parametrize(
    ("experiment", "backend"),
    [
        *((name, Half(dtype="bfloat16")) for name in ROW_CHANGES if name not in _OF_OTHER_ROWS),
        ("contiguous", Half(dtype="bfloat16", memory_format="channels_last")),
        ("compiled", Half(memory_format="channels_last")),
        ("ieee-float32", Eager(precision="tf32", memory_format="channels_last")),
        ("larger-batch", Eager(batch_size=2)),
        ("cast-once", Autocast(dtype="bfloat16", cache_enabled=False)),
        ("cast-once", ApexAmp(opt_level="O2", memory_format="channels_last")),
    ],
)
def test_the_row_that_an_experiment_would_measure_is_found(experiment, backend):
    changed = EXPERIMENTS[experiment](backend, backend.batch_size or 4)
    data = rows_of(backend, Compile(mode="reduce-overhead"), changed)
    names = [one.backend for one in data.results]
    assert changed_row(data, names[0], experiment) == names[2]


@pytest.mark.parametrize(
    ("experiment", "backend", "other"),
    [
        ("channels-last", Half(), Half(dtype="bfloat16", memory_format="channels_last")),
        ("channels-last", Half(), Half(memory_format="channels_last", cuda_graph=True)),
        ("channels-last", Half(), Eager(memory_format="channels_last")),
        ("compiled", Half(), Compile()),
        ("compiled", Half(), Compile("float16", freezing=True)),
        ("compiled", Half(fp32_layers="head"), Compile("float16")),
        ("compiled", Eager(), Compile()),
        ("larger-batch", Eager(), Eager(batch_size=8)),
        ("cast-once", Autocast(), Half(dtype="bfloat16")),
        ("fresh-process", Eager(), Half()),
    ],
)
def test_a_row_with_any_other_change_is_not_taken_for_it(experiment, backend, other):
    data = rows_of(backend, other)
    assert changed_row(data, data.results[0].backend, experiment) == ""


def test_a_row_whose_name_cannot_be_read_is_passed_over():
    odd = attrs.evolve(result_of(Half(cuda_graph=True)), backend="half:a,b")
    data = comparison_data(results=(result_of(Half()), odd), failures=(), reference="half")
    assert changed_row(data, "half", "cuda-graph") == ""


def test_the_options_that_every_backend_has_are_known():
    assert set(COMMON_OPTIONS) == {field.name for field in attrs.fields(Backend)}
