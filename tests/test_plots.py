"""Where the marks of the report's plots stand."""

from __future__ import annotations

import itertools
import math
import re
from enum import Enum

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up_results import CLEAN, comparison, comparison_data, conv, evidence, recorded
from pages import LEDGER, large, page
from precisionbench.analysis.data_quality import observations
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of, facts_of_rows
from precisionbench.diagnosis.layer_classes import layer_classes
from precisionbench.errors import SpecError
from precisionbench.report.html import tables
from precisionbench.report.html.distribution_plot import HEIGHT as SHAPE_HEIGHT
from precisionbench.report.html.distribution_plot import distributions
from precisionbench.report.html.latency_plot import HEIGHT, WIDTH, LatencyPanel, latency_plot
from precisionbench.report.html.numbered_points import DOT, FRAME, RADIUS
from precisionbench.report.html.page import to_html
from precisionbench.report.html.roofline_plot import roofline_plot
from precisionbench.report.html.scales import Scale
from precisionbench.report.html.speedup_plot import speedup_plot
from precisionbench.report.html.time_plot import OUTSIDE, time_plot
from precisionbench.report.html.waterfall import TOTAL, waterfall
from precisionbench.results import Block, DeviceState

HALF = SHAPE_HEIGHT / 2

# --- axes ---------------------------------------------------------------------------------------

ratios = st.floats(1e-6, 1e15)


@given(st.lists(ratios, min_size=1), st.sampled_from([1.5, 100.0]))
def test_an_axis_holds_all_values_and_keeps_their_order(values, least):
    scale = Scale.around(values, least)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] > scale.start - 1e-9
    assert places[-1] < scale.end + 1e-9
    assert scale.high / scale.low >= least * 0.999


@given(ratios, st.floats(1.01, 1e9))
def test_ticks_are_few_round_and_on_the_axis(low, ratio):
    scale = Scale(low, low * ratio, log=True)
    ticks = scale.ticks()
    assert len(ticks) <= 8
    for tick in ticks:
        assert scale.start <= tick.at <= scale.end
        assert float(f"{tick.value:.2g}") == pytest.approx(tick.value)


@given(ratios, st.floats(1.5, 10))
def test_a_short_axis_has_more_than_one_tick(low, ratio):
    assert len(Scale(low, low * ratio, log=True).ticks()) > 1


@given(st.floats(0, 1e3), st.floats(1e-6, 1e6))
def test_ticks_of_an_even_axis_are_even(low, span):
    values = [tick.value for tick in Scale(low, low + span).ticks()]
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)
    assert len(values) <= 8


def test_equal_ratios_are_equal_lengths_on_a_logarithmic_axis():
    scale = Scale(1.0, 100.0, log=True, start=0, end=100)
    assert [scale.at(x) for x in (1, 10, 100, 1000)] == [0, 50, 100, 100]


# --- the gap ------------------------------------------------------------------------------------


def test_the_bars_of_a_waterfall_are_the_rows_of_its_ledger():
    found = waterfall(LEDGER)
    assert [(b.label, b.kind, b.factor) for b in found.bars[:-1]] == [row[:3] for row in LEDGER]
    total = found.bars[-1]
    assert total.kind == TOTAL
    assert total.factor == pytest.approx(math.prod(row[2] for row in LEDGER), rel=1e-12)


def test_bars_of_a_waterfall_are_logarithmic_and_adjacent():
    found = waterfall(LEDGER)
    unit = found.bars[0].width / abs(math.log(found.bars[0].factor))
    end = found.one_at
    for bar in found.bars[:-1]:
        assert bar.width == pytest.approx(unit * abs(math.log(bar.factor)), abs=0.01)
        start, stop = (bar.at, bar.at + bar.width)[:: 1 if bar.factor > 1 else -1]
        assert start == pytest.approx(end, abs=0.01)
        end = stop
    assert found.bars[-1].at == pytest.approx(found.one_at, abs=0.01)
    assert found.bars[-1].at + found.bars[-1].width == pytest.approx(end, abs=0.01)


def test_known_ranges_of_a_waterfall_are_shown():
    found = waterfall(LEDGER)
    assert found.bars[0].text == "1.47x (1.42 to 1.52)"
    assert found.bars[0].low_at < found.bars[0].at + found.bars[0].width < found.bars[0].high_at
    assert (found.bars[3].text, found.bars[3].low_at) == ("0.930x", None)


def test_a_mostly_assumed_gap_has_a_warning():
    assert waterfall(LEDGER).warning == ""
    rows = [("half", "measured", 1.5, None, None), ("INT8", "assumed", 2.0, None, None)]
    assert waterfall(rows).warning == (
        "63% of this gap is assumed or unexplained, and not measured."
    )
    assert waterfall([]).bars[0].factor == 1


def test_a_kind_may_be_of_an_enum():
    kind = Enum("Kind", {"MEASURED": "measured"}, type=str).MEASURED
    assert waterfall([("a", kind, 2, None, None)]).bars[0].kind == "measured"


@pytest.mark.parametrize(
    "row",
    [
        ("a", "measured", 0.0, None, None),
        ("a", "measured", math.inf, None, None),
        ("a", "measured", None, None, None),
        ("a", "measured", 2.0, -1.0, 3.0),
        ("a", "total", 2.0, None, None),
        ("a", "measured", 2.0),
        ("a", "measured", "many", None, None),
    ],
)
def test_invalid_rows_of_a_ledger_are_refused(row):
    with pytest.raises(SpecError, match="is not a row of a ledger; give .*measured, derived"):
        waterfall([row])


# --- speed-ups ----------------------------------------------------------------------------------


def test_a_speedup_is_drawn_within_its_interval_and_right_of_1_if_faster():
    data = large(4, 2)
    found = speedup_plot(data, speedups(data))
    assert [whisker.name for whisker in found.whiskers] == [f"half:variant={n}" for n in (1, 2, 3)]
    for whisker in found.whiskers:
        assert found.one_at < whisker.low_at <= whisker.at <= whisker.high_at
        assert whisker.tone == "good"
        assert whisker.text.endswith("faster")


def test_without_a_reference_there_is_no_speedup_plot():
    data = attrs.evolve(comparison_data(), reference="apex-amp")
    assert speedup_plot(data, speedups(data)) is None


# --- latencies ----------------------------------------------------------------------------------


def points(path: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", path)]


def row_of(*blocks: Block):
    row = comparison_data().results[1]
    return attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))


def panel_of(*blocks: Block) -> LatencyPanel:
    return latency_plot([row_of(*blocks)]).panels[0]


def humps(path: str) -> list[tuple[int, float]]:
    """Place and half the height of each hump of a density, from left to right."""
    found = [(int(x), HALF - float(y)) for x, y in re.findall(r"[ML](\d+) (-?[\d.]+)", path)]
    upper = [(x, high) for x, high in found if high >= 0]
    heights = [0.0, *(high for _, high in upper), 0.0]
    return [
        (x, round(high, 1))
        for (x, high), before, after in zip(upper, heights, heights[2:], strict=False)
        if high > max(before, after)
    ]


def test_all_distributions_have_one_axis():
    fast, slow = row_of(Block(0, 0, 0, (1e-3,) * 8)), row_of(Block(0, 0, 0, (4e-3,) * 8))
    found = distributions([fast, slow], {})
    places = {tick.value: tick.at for tick in found.ticks}
    for shape, latency_s in zip(found.shapes, (1e-3, 4e-3), strict=True):
        assert shape.median_at == pytest.approx(places[latency_s], abs=0.01)
        ((place, high),) = humps(shape.path)
        assert place == pytest.approx(10 * shape.median_at, abs=4)
        assert high == HALF


def test_the_height_of_a_distribution_is_the_share_of_samples():
    (shape,) = distributions([row_of(Block(0, 0, 0, (1e-3,) * 8 + (2e-3,) * 4))], {}).shapes
    (_, high), (_, low) = humps(shape.path)
    assert low == pytest.approx(high / 2, abs=0.1)


def test_a_sample_far_out_does_not_stretch_the_axis_and_is_counted():
    times_s = tuple(1e-3 * (1 + n / 1e4) for n in range(100))
    (shape,) = distributions([row_of(Block(0, 0, 0, (*times_s, 0.5)))], {}).shapes
    ((place, _),) = humps(shape.far)
    assert place > max(place for place, _ in humps(shape.path)) + 100
    assert shape.text.endswith("1 beyond the axis, up to 500.0 ms")


def test_a_single_sample_is_called_one():
    (shape,) = distributions([row_of(Block(0, 0, 0, (0.3247,)))], {}).shapes
    assert shape.text == "1 sample, 324.7 ms"


def test_a_distribution_has_its_observations_and_few_marks_for_many_samples():
    data = recorded("autocast")
    shapes = distributions(data.results, observations(data)).shapes
    assert shapes[1].flags == ("launch-bound", "outliers")
    many = row_of(
        *(Block(r, 0, 0, tuple(1e-3 * (1 + n / 999) for n in range(999))) for r in range(9))
    )
    (shape,) = distributions([many], {}).shapes
    assert len(shape.path) < 10_000
    assert distributions([], {}) is None


def test_samples_are_drawn_in_time_order_and_slower_ones_higher():
    panel = panel_of(Block(1, 0, 0, (3e-3, 4e-3)), Block(0, 0, 0, (1e-3, 2e-3)))
    (dots,) = panel.dots
    xs, ys = zip(*points(dots.path), strict=True)
    assert xs == (125, 375, 625, 875)
    assert list(ys) == sorted(ys, reverse=True)
    assert all(0 < y < HEIGHT for y in ys)
    assert panel.bands == f"M625 0H875V{HEIGHT}H625z"


def test_all_rows_have_the_same_axis_relative_to_their_median():
    calm = Block(0, 0, 0, (0.99e-3, 1e-3, 1.01e-3))
    noisy = Block(0, 0, 0, (1.8e-3, 2e-3, 2.2e-3))
    plot = latency_plot([row_of(calm), row_of(noisy)])
    assert (plot.top, plot.bottom) == ("+10 %", "\N{MINUS SIGN}10 %")
    first, second = ([y for _, y in points(panel.dots[0].path)] for panel in plot.panels)
    assert first[1] == second[1] == plot.median_at
    assert second[0] - second[2] == pytest.approx(10 * (first[0] - first[2]), abs=10)


def test_each_worker_has_a_colour_and_sessions_are_separated():
    blocks = [
        Block(r, k, k, (1e-3,) * 5, session=s) for s in (0, 1) for r in (0, 1) for k in (0, 1)
    ]
    panel = panel_of(*blocks)
    assert [dots.tone for dots in panel.dots] == [0, 1, 2, 3]
    assert panel.sessions.count("M") == 1
    assert panel.text == "4 rounds, 4 workers"


def test_throttled_blocks_are_marked():
    held = DeviceState(throttled=("sw_power_cap",))
    panel = panel_of(Block(0, 0, 0, (1e-3,) * 5), Block(1, 0, 0, (1e-3,) * 5, state=held))
    assert panel.throttled == f"M550 {HEIGHT - 3}H951"


def test_far_samples_are_at_the_edge_and_counted():
    times_s = tuple(1e-3 * (1 + n / 1e4) for n in range(100))
    panel = panel_of(Block(0, 0, 0, (*times_s, 0.5)))
    assert len(points(panel.far)) == 1
    assert panel.text.endswith("1 sample beyond the axis")
    assert len(points(panel.dots[0].path)) == 100


def test_equal_samples_are_drawn_in_the_middle():
    panel = panel_of(Block(0, 0, 0, (1e-3,) * 8))
    assert {y for _, y in points(panel.dots[0].path)} == {HEIGHT // 2}
    assert panel.far == ""


@pytest.mark.parametrize("name", ["autocast", "resnet50-batch1"])
def test_every_near_sample_of_a_recorded_run_is_within_the_plot(name):
    for panel in latency_plot(recorded(name).results).panels:
        assert panel.far or "beyond" not in panel.text
        for x, y in points(panel.dots[0].path):
            assert 0 <= x <= WIDTH
            assert 0 < y < HEIGHT


# --- where the time goes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["autocast", "channels-50"])
def test_the_parts_of_a_bar_are_the_times_of_the_diagnosis(name):
    data = recorded(name)
    roofs = diagnosis_of(data).roofs
    for bar in time_plot(data, roofs).bars:
        told = {roof.category: roof.time_s for roof in roofs[bar.name]}
        parts = {segment.category: segment for segment in bar.segments}
        assert {c: s.time_s for c, s in parts.items() if c != OUTSIDE} == told
        latency_s = next(r.latency.value for r in data.results if r.backend == bar.name)
        total_s = sum(segment.time_s for segment in bar.segments)
        assert total_s == pytest.approx(max(latency_s, sum(told.values())))
        assert sum(segment.share for segment in bar.segments) == pytest.approx(1)
        for before, after in itertools.pairwise(bar.segments):
            assert before.at + before.width == pytest.approx(after.at, abs=0.01)


def test_the_fastest_row_is_the_one_whose_parts_are_all_labelled():
    data = recorded("channels-50")
    plot = time_plot(data, diagnosis_of(data).roofs)
    latencies_s = {row.backend: row.latency.value for row in data.results}
    fastest = min(latencies_s, key=latencies_s.get)
    assert [bar.name for bar in plot.bars if bar.is_fastest] == [fastest]
    (bar,) = (bar for bar in plot.bars if bar.is_fastest)
    text = " ".join(page(data).text.split())
    for part in bar.segments:
        assert f"{part.words} {part.text} ({100 * part.share:.0f}%)" in text


def test_a_bar_lengthened_by_the_profiler_shows_both_times():
    slow = evidence(conv(5e-3))
    (bar,) = time_plot(comparison(slow), diagnosis_of(comparison(slow)).roofs).bars
    assert bar.text == "5.00 ms under the profiler, 1.02 ms without"


def test_without_evidence_there_is_no_time_plot():
    data = comparison()
    assert time_plot(data, diagnosis_of(data).roofs) is None
    assert roofline_plot(facts_of_rows(data)) is None


# --- the roofline -------------------------------------------------------------------------------


def test_classes_of_layers_have_the_flops_and_bytes_of_their_operations():
    data = comparison(**CLEAN)
    (found,) = layer_classes(facts_of(data, data.results[0]))
    assert (found.kind, found.count, found.time_s) == ("Conv2d", 1, 1e-3)
    assert found.flops == 2.0 * 32 * 56 * 56 * 64 * 64 * 9
    assert found.bytes == 4 * (2 * 32 * 64 * 56 * 56 + 64 * 64 * 3 * 3)
    assert found.flop_rate == pytest.approx(found.flops / 1e-3)


def test_half_has_twice_the_intensity_and_a_higher_rate():
    found = roofline_plot(facts_of_rows(recorded("channels-50")))
    eager, half = found.points
    assert (eager.row, half.row) == ("eager", "half")
    assert half.x > eager.x
    assert half.y < eager.y
    assert float(half.intensity) == pytest.approx(2 * float(eager.intensity), rel=0.01)
    assert 0 < half.of_roof < 1


def test_each_peak_of_the_device_has_one_line():
    found = roofline_plot(facts_of_rows(recorded("depthwise")))
    assert [roof.text.partition(" FLOP")[0].rsplit(" ", 2)[0] for roof in found.roofs] == [
        "fp32",
        "tf32",
        "fp16 and bf16",
    ]
    heights = [roof.y for roof in found.roofs]
    assert heights == sorted(heights, reverse=True)
    assert found.slope.y2 == pytest.approx(min(heights))
    ridges = [roof.ridge_x for roof in found.roofs]
    assert ridges == sorted(ridges)


def test_no_roofline_is_drawn_where_no_peak_is_known():
    data = comparison(**CLEAN, gpu=attrs.evolve(recorded("depthwise").environment.gpu, name="X1"))
    assert roofline_plot(facts_of_rows(data)) is None
    assert 'id="roofline"' not in to_html(data)


def test_the_axes_and_the_slope_of_a_roofline_are_labelled():
    text = page(recorded("depthwise")).texts["text"]
    assert "throughput (FLOP/s)" in text
    assert "arithmetic intensity (FLOP/byte)" in text
    assert "memory bandwidth 3.35 TB/s" in text


NARROWEST = 320 / 100  # pixels for each percent of a narrow screen


@pytest.mark.parametrize("name", ["resnet50-five", "large"])
def test_no_number_of_a_roofline_hides_another_or_a_place(name):
    data = large(8, 3) if name == "large" else recorded(name)
    found = roofline_plot(facts_of_rows(data)).points
    for one, other in itertools.permutations(found, 2):
        for x, y, size in ((other.label_x, other.label_y, RADIUS), (other.x, other.y, DOT)):
            apart = math.hypot((one.label_x - x) * NARROWEST, one.label_y - y)
            assert apart >= RADIUS + size - 0.01, (one, other)
    assert all(FRAME.left <= one.label_x <= FRAME.right for one in found)
    assert all(FRAME.top <= one.label_y <= FRAME.bottom for one in found)


# --- tables -------------------------------------------------------------------------------------


def test_the_longest_layers_are_shown_and_the_rest_is_counted():
    pairs = diagnosis_of(recorded("channels-50")).layers
    found = tables.layer_table(pairs, most=4)
    assert [row.path for row in found.rows] == [pair.path for pair in pairs[:4]]
    assert found.left_out == len(pairs) - 4
    assert 0 < found.left_out_share < 1
    assert tables.layer_table(pairs).left_out == 0
    assert tables.layer_table(()).rows == ()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "void at::native::(anonymous namespace)::max_pool<c10::Half, int>(int, c10::Half*)",
            "max_pool<Half, int>",
        ),
        (
            "void f<4, std::array<char*, 2ul> >(int, std::array<char*, 2ul>)",
            "f<4, array<char*, 2ul> >",
        ),
        (
            "void at::f<8, at::g(at::T&)::{lambda(c10::Half)#1}>(int, at::g(at::T&))",
            "f<8, g(T&)::{lambda(Half)#1}>",
        ),
        (
            "nvjet_sm90_hsh_64x24_64x16_4x2_h_bz_bias_TNT",
            "nvjet_sm90_hsh_64x24_64x16_4x2_h_bz_bias_TNT",
        ),
        ("", ""),
    ],
)
def test_a_kernel_is_named_without_namespaces_and_arguments(name, shown):
    assert tables.kernel_text(name) == shown


def test_energy_is_per_item_if_the_batch_size_is_known():
    data = recorded("channels-50")
    unknown = attrs.evolve(data.results[0], batch_size=None)
    rows = tables.summary(attrs.evolve(data, results=(unknown, data.results[1])), {})
    assert [row.energy for row in rows] == ["1.45 J/call", "7.04 mJ/item"]
