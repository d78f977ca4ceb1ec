"""Under whose rules: each figure by hand, what cannot be stated, and LoadGen's own numbers."""

from __future__ import annotations

import json
import math
import re

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.cli import main
from precisionbench.errors import RowNotFoundError
from precisionbench.results import (
    BackendResult,
    Block,
    Measurement,
    Passes,
    Preparation,
    json_format,
)
from precisionbench.results.evidence import Evidence
from precisionbench.rules import Statement, statements
from precisionbench.rules.statement import Source
from precisionbench.rules.trtexec import percentile
from precisionbench.rules.wall_clock import Loop
from precisionbench.statistics import early_stopping_estimate, early_stopping_minimum

COPIES = {"to_device_s": (0.003, 0.004, 0.005), "to_host_s": (0.001,)}


def row(
    samples: tuple[float, ...] = (0.010, 0.010, 0.013),
    *,
    batch_size: int | None = 100,
    clock: str = "cuda_events",
    calls_per_sample: int = 1,
    evidence: Evidence | None = None,
    options: dict | None = None,
    backend: str = "half",
    **passes,
) -> BackendResult:
    """A row with one block of these samples."""
    blocks = (Block(0, 0, 0, samples),)
    prepared = (Preparation(1.0, 0.1, 3),)
    measured = Measurement(clock, 1e-9, calls_per_sample, prepared, blocks, "target")
    return BackendResult(
        backend,
        "half",
        options or {},
        batch_size,
        measured,
        passes=Passes(**passes),
        evidence=evidence,
    )


def said(found: BackendResult, rule: str, figure: str = "", engines=()) -> Statement:
    """The one statement of a rule whose figure begins so."""
    (only,) = (
        s for s in statements(found, engines) if s.rule == rule and s.figure.startswith(figure)
    )
    return only


# --- this library ---------------------------------------------------------------------------------


def test_own_statements_are_the_median_and_items_per_median():
    found = row()
    assert said(found, "precisionbench", "latency").value == pytest.approx(0.010)
    assert said(found, "precisionbench", "throughput").value == pytest.approx(10_000)


def test_reported_rows_have_only_reported_statements():
    found = statements(row(clock="reported"))
    assert {s.kind for s in found if s.value is not None} == {"reported"}
    assert all("describes its timing" in s.inside for s in found[:2])
    others = [s for s in found if s.rule != "precisionbench"]
    assert others
    assert all("reported, not measured here" in s.missing for s in others)


# --- trtexec --------------------------------------------------------------------------------------


def test_trtexec_states_median_and_mean_of_the_events():
    found = row()
    assert said(found, "trtexec", "GPU compute time, median").value == pytest.approx(0.010)
    assert said(found, "trtexec", "GPU compute time, mean").value == pytest.approx(0.011)


def test_trtexec_throughput_is_items_per_mean():
    assert said(row(), "trtexec", "throughput, no").value == pytest.approx(100 / 0.011)


def test_trtexec_percentiles_exclude_the_slowest_share_rounded_down():
    assert percentile(range(1, 301), 0.99) == 297  # 3 of 300 are excluded
    assert percentile([5.0], 0.99) == 5.0


def test_a_99th_percentile_needs_299_samples():
    few, enough = row((0.01,) * 298), row((0.01,) * 298 + (0.02,))
    assert "298 samples are too few" in said(few, "trtexec", "GPU compute time, perc").missing
    assert said(enough, "trtexec", "GPU compute time, perc").value == 0.01  # 2 are excluded


def test_samples_of_several_calls_have_no_percentile():
    found = row((0.001,) * 400, calls_per_sample=5)
    assert "the mean of 5 calls" in said(found, "trtexec", "GPU compute time, perc").missing


def test_trtexec_states_nothing_for_the_host_clock():
    found = row(clock="host")
    assert "CUDA events" in said(found, "trtexec", "GPU compute time, median").missing


def test_latency_is_the_sum_of_copies_and_compute():
    found = row(**COPIES)
    assert said(found, "trtexec", "H2D").value == pytest.approx(0.004)
    assert said(found, "trtexec", "D2H").value == pytest.approx(0.001)
    assert said(found, "trtexec", "latency").value == pytest.approx(0.015)


def test_the_rate_with_transfers_is_between_overlapped_and_serial():
    found = said(row(**COPIES), "trtexec", "throughput, with")
    assert (found.low, found.high) == (pytest.approx(100 / 0.015), pytest.approx(100 / 0.010))


def test_unmeasured_transfers_have_a_reason():
    assert said(row(), "trtexec", "H2D").missing == "not measured"
    found = row(unknown={"transfers": "there is no tensor to transfer"})
    assert said(found, "trtexec", "latency").missing.endswith("no tensor to transfer")


def test_a_missing_graph_time_has_a_reason():
    found = row(unknown={"graph": "not capturable: it waits"})
    assert said(found, "trtexec", "GPU compute time, CUDA").missing == "not capturable: it waits"
    assert said(row(graph_s=(0.009,)), "trtexec", "GPU compute time, CUDA").value == 0.009


# --- jetson_benchmarks ----------------------------------------------------------------------------


def dla(core: int, **more) -> BackendResult:
    spec = f"torch2trt:dla_core={core}"
    return row((0.008,), batch_size=4, options={"dla_core": core}, backend=spec, **more)


def test_one_row_is_that_engine_alone():
    found = said(row(), "jetson_benchmarks")
    assert (found.figure, found.kind) == ("FPS, GPU", "measured")
    assert found.value == pytest.approx(100 / 0.011)


def test_rates_of_engines_are_added_and_marked_as_not_measured_together():
    gpu = row((0.012,), batch_size=16)
    found = said(gpu, "jetson_benchmarks", engines=[dla(0), dla(1)])
    assert found.figure == "FPS, GPU + DLA0 + DLA1"
    assert found.value == pytest.approx(16 / 0.012 + 2 * 4 / 0.008)
    assert found.kind == "derived"
    assert "not measured at the same time" in found.unmet[0]


def test_two_rows_on_one_engine_do_not_add_up():
    found = said(row(), "jetson_benchmarks", engines=[row(backend="eager")])
    assert found.value is None
    assert "half and eager run on the same engine (GPU)" in found.missing


# --- MLPerf ---------------------------------------------------------------------------------------


def test_offline_names_each_unmet_condition():
    found = said(row(), "MLPerf Offline")
    assert found.value == pytest.approx(100 / 0.011)
    text = "; ".join(found.unmet)
    for condition in ("data set", "pre- and post-processing", "accuracy", "one query"):
        assert condition in text
    assert "300 samples instead of 24,576" in text
    assert "0.033 s instead of 600 s" in text


def test_enough_samples_and_time_are_no_unmet_condition():
    found = said(row((2.5,) * 250), "MLPerf Offline")
    assert not any("instead of" in condition for condition in found.unmet)


def test_single_stream_is_the_early_stopping_bound_of_synchronised_calls():
    wall_s = tuple((1000 + n) * 1e-5 for n in range(100))
    found = said(row(batch_size=1, wall_s=wall_s), "MLPerf SingleStream")
    assert found.value == pytest.approx(0.01097)  # the third largest of 100


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (row(wall_s=(0.01,) * 64), "the batch size is 100, but must be 1"),
        (row(batch_size=None), "the batch size is not known"),
        (row(batch_size=1, wall_s=(0.01,) * 63), "63 synchronised calls, .* needs 64"),
        (row(batch_size=1, clock="host", calls_per_sample=3), "the mean of 3 calls"),
    ],
)
def test_single_stream_has_a_reason_where_it_cannot_be_stated(found, missing):
    assert re.search(missing, said(found, "MLPerf SingleStream").missing)


def test_on_a_cpu_the_samples_themselves_are_queries():
    found = row((0.01,) * 63 + (0.02,), batch_size=1, clock="host")
    assert said(found, "MLPerf SingleStream").value == 0.02  # of 64 the largest


def test_multi_stream_is_a_query_of_8():
    found = said(row(batch_size=8, wall_s=(0.01,) * 662), "MLPerf MultiStream")
    assert found.value == 0.01


# --- LoadGen's early stopping ---------------------------------------------------------------------


def test_the_minimum_number_of_queries_is_loadgens():
    assert early_stopping_minimum(0.90) == 64
    assert early_stopping_minimum(0.99) == 662  # *.MultiStream.min_query_count of mlperf.conf


def test_the_third_largest_of_100_bounds_the_90th_percentile():
    """binomial(3; 100, 0.1) is 0.0078, and with 4 it is 0.024."""
    assert early_stopping_estimate(range(100), 0.90) == 97
    assert early_stopping_estimate(range(64), 0.90) == 63
    assert early_stopping_estimate(range(63), 0.90) is None


def loadgens_discarded(count: int, p: float) -> int:
    """LoadGen's loop in plain binomials: the largest t with h(t) + t queries or fewer."""

    def odds(h: int, t: int) -> float:
        return sum(math.comb(h + t, x) * p ** (h + t - x) * (1 - p) ** x for x in range(t + 1))

    t = 1
    while True:
        h = 1
        while odds(h, t + 1) >= 0.01:
            h += 1
        if count < h + t + 1:
            return t
        t += 1


@pytest.mark.parametrize("count", [64, 90, 143, 200])
def test_the_estimate_is_the_one_that_loadgens_loop_finds(count):
    t = loadgens_discarded(count, 0.90)
    assert early_stopping_estimate(range(count), 0.90) == count - t


times = st.floats(1e-4, 1.0)
runs = st.lists(times, min_size=64, max_size=300)


@pytest.mark.uncounted
@given(runs)
def test_the_bound_is_never_below_the_plain_percentile(samples):
    estimate = early_stopping_estimate(samples, 0.90)
    assert estimate is not None
    assert sorted(samples)[int(len(samples) * 0.9)] <= estimate <= max(samples)


@pytest.mark.uncounted
@given(runs, times)
def test_slower_calls_never_lower_the_bound(samples, more_s):
    slower = [sample + more_s for sample in samples]
    before, after = (early_stopping_estimate(run, 0.90) for run in (samples, slower))
    assert before is not None
    assert after is not None
    assert after > before


# --- a clock that does not wait -------------------------------------------------------------------

# The founding experiment on an H200, batch 100, 30 calls (docs/rules.md): kernels in a call, and
# seconds of a loop unsynchronised, synchronised, and by events in a run of its own.
H200 = {
    "O3": (381, 0.2959, 0.3224, 0.3164),
    "O2": (275, 0.2830, 0.3187, 0.3028),
    "O1": (274, 0.2786, 0.3123, 0.3026),
    "O0": (277, 0.2795, 0.3151, 0.3047),
    "Float32 after O1": (275, 0.2782, 0.3140, 0.3031),
}


@pytest.mark.parametrize("case", H200)
def test_the_queue_model_is_within_2_percent_of_an_h200(case):
    kernels, unsynchronised_s, synchronised_s, _ = H200[case]
    loop = Loop(30, synchronised_s / 30, 0.0, kernels)
    assert loop.shortest_s == pytest.approx(unsynchronised_s, rel=0.02)
    assert loop.shortest_s < unsynchronised_s < loop.longest_s


@pytest.mark.parametrize("case", H200)
def test_the_predicted_range_contains_the_recorded_time_within_7_percent(case):
    kernels, unsynchronised_s, _, events_s = H200[case]
    loop = Loop(30, events_s / 30, 0.0, kernels)
    assert loop.shortest_s < unsynchronised_s < loop.longest_s
    assert loop.shortest_s == pytest.approx(unsynchronised_s, rel=0.07)


def test_a_loop_that_fits_into_the_queue_takes_the_enqueue_time():
    assert Loop(30, 0.01, 0.001, 20).shortest_s == pytest.approx(0.03)


def test_without_a_number_of_launches_the_queue_is_unlimited():
    found = said(row(enqueue_s=(0.001,)), "unsynchronised wall clock")
    assert (found.low, found.high) == (pytest.approx(10_000), pytest.approx(100_000))
    assert "not known" in found.unmet[0]


def test_a_full_queue_makes_the_host_wait():
    found = row(enqueue_s=(0.001,), evidence=Evidence(launches=256.0))
    statement = said(found, "unsynchronised wall clock")
    assert statement.high == pytest.approx(3000 / 0.26)  # 4 of 30 calls are still queued
    assert "1,024" in statement.unmet[0]


def test_a_host_bound_row_is_not_overstated():
    found = said(row(enqueue_s=(0.012,)), "unsynchronised wall clock")
    assert found.low == found.high == pytest.approx(10_000)


def test_on_a_cpu_calls_are_synchronous():
    found = said(row(clock="host"), "unsynchronised wall clock")
    assert found.value == found.low == found.high == pytest.approx(10_000)


def test_work_on_another_stream_has_no_statement():
    found = row(clock="host", labels=("stream_escape",))
    assert said(found, "unsynchronised wall clock").value is None


loops = st.tuples(st.integers(1, 500), st.floats(1e-5, 0.1), st.floats(0, 0.1), st.floats(1, 5000))


@given(loops)
def test_an_unsynchronised_loop_never_takes_longer_than_a_synchronised_one(figures):
    loop = Loop(*figures)
    assert 0 <= loop.shortest_s <= loop.longest_s


@given(loops)
def test_more_calls_hide_a_smaller_share(figures):
    loop = Loop(*figures)
    longer = attrs.evolve(loop, calls=2 * loop.calls)
    share = loop.shortest_s / loop.longest_s
    assert longer.shortest_s / longer.longest_s >= share - 1e-9


# --- all of them ----------------------------------------------------------------------------------


@given(st.lists(times, min_size=1, max_size=30), st.integers(1, 512), st.sampled_from([1, 4]))
def test_every_statement_has_a_value_or_a_reason_and_a_source(samples, batch_size, calls):
    found = row(tuple(samples), batch_size=batch_size, calls_per_sample=calls, **COPIES)
    for statement in statements(found):
        assert (statement.value is None) == bool(statement.missing)
        assert statement.source.url
        if statement.low is not None:
            assert statement.low <= statement.value * (1 + 1e-12)
            assert statement.value <= statement.high * (1 + 1e-12)


def test_a_statement_without_value_and_reason_is_refused():
    with pytest.raises(ValueError, match="needs either a value or the reason"):
        Statement("rule", "figure", "s", "inside", Source("title", "url"))


def test_without_a_batch_the_unit_is_calls():
    assert said(row(batch_size=None), "trtexec", "throughput, no").unit == "calls/s"


def test_a_comparison_gives_the_statements_of_a_row():
    comparison = pb.Comparison(comparison_data())
    assert comparison.under_rules("half") == statements(comparison["half"])
    with pytest.raises(RowNotFoundError, match="did you mean 'half'"):
        comparison.under_rules("hal")


def test_transfers_are_saved_and_files_without_them_are_read():
    data = comparison_data()
    first = attrs.evolve(data.results[0], passes=Passes(**COPIES))
    with_copies = attrs.evolve(data, results=(first, *data.results[1:]))
    text = json_format.to_json(with_copies)
    assert json_format.from_json(text) == with_copies
    document = json.loads(text)
    for name in COPIES:
        del document["results"][0]["passes"][name]
    assert json_format.from_json(json.dumps(document)).results[0].passes.to_device_s == ()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> str:
    pb.Comparison(comparison_data()).save(tmp_path / "r.json")
    return str(tmp_path / "r.json")


def show(*args: str):
    return CliRunner().invoke(main, ["show", *args])


def test_the_command_shows_all_rows_or_one(saved):
    everything = show(saved, "--rules").stdout
    assert "eager, by reporting convention" in everything
    assert "half, by reporting convention" in everything
    only = show(saved, "--rules", "--backend", "half").stdout
    assert "eager" not in only
    assert "https://github.com/mlcommons/inference" in only


def test_the_command_gives_markdown_and_json(saved):
    markdown = show(saved, "--rules", "--markdown", "-b", "half").stdout
    assert "| trtexec | GPU compute time, median | 4.000 ms | measured |" in markdown
    document = json.loads(show(saved, "--rules", "--json").stdout)
    assert document["format"] == "precisionbench.statements"
    first = document["rows"]["half"][0]
    assert (first["figure"], first["value"]) == ("latency, median", pytest.approx(0.004))


def test_rows_on_the_same_engine_are_reported(saved):
    text = show(saved, "--rules", "-b", "half", "--engine", "eager", "--json").stdout
    assert "run on the same engine" in text


def test_options_of_rules_without_it_are_bad_usage(saved):
    done = show(saved, "--backend", "half")
    assert done.exit_code == 2
    assert "require --rules" in done.stderr
