"""What the results of studies show: sweeps, groups, differences, histories, and their reports."""

from __future__ import annotations

import io
import json
import math
import re

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

import precisionbench as pb
from made_up_results import comparison_data, recorded
from made_up_studies import (
    EVEN_AT,
    GPU,
    NORMAL,
    REGRESSED,
    cell,
    cell_result,
    data_of,
    eager_s,
    everything,
    failed,
    half_s,
    other_gpu,
    runs,
    sweep_results,
)
from pages import HOSTILE, Page
from precisionbench.analysis.history import LATENCY, SPEEDUP, history
from precisionbench.analysis.merged import merge
from precisionbench.analysis.study_check import check_study
from precisionbench.analysis.study_diff import study_difference
from precisionbench.analysis.study_summary import summarise
from precisionbench.analysis.sweep import RowSweep, Sweep, sweeps, thread_scaling
from precisionbench.cli import main
from precisionbench.errors import IncomparableError, RowNotFoundError, SpecError
from precisionbench.report import plots, study_text
from precisionbench.report.html.study_page import to_html
from precisionbench.report.html.sweep_plot import rate_text, sweep_plot
from precisionbench.report.plain import item
from precisionbench.report.study_diff import StudyDiff
from precisionbench.report.study_diff import to_text as diff_text
from precisionbench.report.study_report import to_markdown, to_text
from precisionbench.report.study_words import crossover_text, saturation_text
from precisionbench.results import json_format
from precisionbench.results.study import CellResult
from precisionbench.statistics import Verdict


def row(found: Sweep, name: str = "half") -> RowSweep:
    return next(one for one in found.rows if one.backend == name)


def sweep(**options) -> Sweep:
    (found,) = sweeps(sweep_results(**options))
    return found


# --- sweeps -------------------------------------------------------------------------------------


def test_the_crossover_is_between_the_batches_with_clear_verdicts():
    found = row(sweep()).crossover
    assert (found.kind, found.above, found.batch_size) == ("between", 4, 8)
    assert found.at.low < EVEN_AT < found.at.high or found.at.value == pytest.approx(6, rel=0.03)


def test_the_interpolated_crossover_contains_where_both_are_even():
    held = 0
    for seed in range(30):
        (one,) = sweeps(sweep_results((4, 6, 8), seed, spread=0.02))
        at = row(one).crossover.at
        held += (at.low or 0) <= EVEN_AT <= (at.high or math.inf)
    assert held >= 28


def test_inconclusive_batches_widen_the_crossover():
    found = row(sweep(sizes=(1, 4, 6, 16), spread=0.03, replicas=2)).crossover
    assert (found.above, found.batch_size) == (1, 16) or found.above in (1, 4)
    assert found.batch_size == 16


def test_a_row_that_pays_everywhere_or_nowhere_has_no_crossover_between():
    large, small = row(sweep(sizes=(16, 32, 64))), row(sweep(sizes=(1, 2, 4)))
    assert (large.crossover.kind, large.crossover.batch_size) == ("from_start", 16)
    assert (small.crossover.kind, small.crossover.batch_size) == ("never", None)
    assert "not faster than eager at batch 4, the largest" in crossover_text(small, "eager")


def test_a_verdict_that_is_inconclusive_at_the_largest_batch_has_no_crossover():
    found = row(sweep(sizes=(1, 2, 6), spread=0.02))
    assert found.crossover.kind == "inconclusive"
    assert "inconclusive" in crossover_text(found, "eager")


def test_a_row_that_becomes_slower_again_has_its_crossover_after_that():
    speedups = {1: 0.8, 2: 1.2, 4: 0.9, 8: 1.3, 16: 1.5}
    results = [cell_result({"eager": 1e-3, "half": 1e-3 / s}, cell(n)) for n, s in speedups.items()]
    found = row(sweeps(results)[0]).crossover
    assert (found.above, found.batch_size) == (4, 8)


def test_throughput_stops_growing_where_larger_batches_gain_little():
    found = sweep(sizes=(1, 16, 64, 128, 256, 512))
    at = row(found, "eager").saturation
    assert (at.batch_size, at.grows_to_the_end) == (128, False)
    assert at.low <= 128 <= at.high
    assert "throughput stops growing at batch 128" in saturation_text(row(found, "eager"))
    growing = row(sweep(sizes=(1, 16, 64)))
    assert (growing.saturation.batch_size, growing.saturation.grows_to_the_end) == (64, True)
    assert "throughput grows up to batch 64, the largest measured" in saturation_text(growing)


def test_a_batch_that_failed_is_named_and_the_others_are_shown():
    (found,) = sweeps([*sweep_results((1, 8)), failed(cell(512), "out of memory")])
    assert found.failures == ((512, "out of memory"),)
    assert [point.batch_size for point in row(found).points] == [1, 8]


def test_cells_of_other_models_devices_and_threads_are_other_sweeps():
    others = [cell(size, model) for model in ("Net", "Other") for size in (1, 8)]
    found = sweeps(cell_result(NORMAL, one) for one in others)
    assert [one.cell.model for one in found] == ["Net", "Other"]
    assert all(one.cell.batch_size is None for one in found)


def test_a_comparison_with_several_references_is_a_cell_and_in_no_sweep():
    results = [
        attrs.evolve(one, data=attrs.evolve(data_of(one), references={"half": "half"}))
        for one in sweep_results((1, 8))
    ]
    assert sweeps(results) == ()
    text = to_text(summarise(merge(results)))
    assert text.count("1 (ref.)") == 4
    assert "inconclusive" not in text


def test_of_two_results_of_a_cell_the_newer_one_counts():
    old, new = sweep_results((1, 8), day=1), sweep_results((1, 8), day=2)
    assert sweeps([*new, *old]) == sweeps(new)


def test_scaling_by_threads_is_relative_to_the_fewest():
    times = {1: 8e-3, 2: 4.4e-3, 4: 4e-3}
    results = [cell_result({"eager": s}, cell(threads=n)) for n, s in times.items()]
    (found,) = thread_scaling(results)
    ((name, points),) = found.rows
    assert (name, [point.threads for point in points]) == ("eager", [1, 2, 4])
    assert points[0].speedup.value == 1
    assert points[2].speedup.low < 2 < points[2].speedup.high
    assert points[2].efficiency.value == pytest.approx(0.5, rel=0.02)


# --- merge --------------------------------------------------------------------------------------


def test_comparable_results_are_one_group():
    found = merge([*sweep_results((1, 8)), *sweep_results((2, 16), seed=1)])
    assert len(found.groups) == 1
    assert found.groups[0].apart == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gpu": other_gpu()}, "GPU"),
        ({"torch": "2.15.0"}, "torch"),
        ({"power_mode": "MODE_15W"}, "power mode"),
        ({"cudnn": "9.20.0"}, "cuDNN"),
    ],
)
def test_another_device_or_version_is_a_group_of_its_own_that_names_why(changes, field):
    found = merge([*sweep_results((1, 8)), *sweep_results((1, 8), **changes)])
    assert [len(group.results) for group in found.groups] == [2, 2]
    assert field in [one.field for one in found.groups[1].apart]
    with pytest.raises(IncomparableError, match=f"2 groups .*{field}"):
        found.refuse_if_apart()


def test_another_model_of_the_same_label_is_a_group_of_its_own():
    old = cell_result(NORMAL)
    workload = attrs.evolve(data_of(old).workload, parameters=21)
    new = attrs.evolve(old, data=attrs.evolve(data_of(old), workload=workload, created="2026-12"))
    apart = merge([old, new]).groups[1].apart
    assert [(one.field, one.old, one.new) for one in apart] == [("parameters of Net", "20", "21")]


def test_the_same_cell_under_other_conditions_is_a_group_of_its_own():
    old = cell_result(NORMAL)
    new = attrs.evolve(old, data=attrs.evolve(data_of(old), shared_cores=1, created="2026-12"))
    assert [one.field for one in merge([old, new]).groups[1].apart] == ["shared cores"]


def test_equal_results_are_kept_once_and_failures_are_in_the_group_of_their_device():
    results = sweep_results((1, 8))
    lost = failed(cell(64))
    elsewhere = failed(cell(64, device="agx orin"))
    found = merge([*results, *results, lost, elsewhere])
    assert [len(group.results) for group in found.groups] == [3, 1]
    assert found.groups[1].device == "agx orin"


def test_a_part_of_a_device_s_name_means_the_device_that_measured():
    named = [
        attrs.evolve(one, cell=attrs.evolve(one.cell, device="test")) for one in sweep_results()
    ]
    found = merge([*named, failed(cell(512, device="test"))])
    assert [group.device for group in found.groups] == [GPU]


def test_two_boards_of_one_model_are_one_group_with_a_note():
    boards = [cell_result(NORMAL, cell(n), gpu=other_gpu(uuid=f"board-{n}")) for n in (1, 8)]
    (group,) = merge(boards).groups
    assert group.notes == ("2 boards of the same model, which may differ by a few percent",)


def test_recorded_results_of_two_devices_are_put_side_by_side():
    files = ("docs/records/h200-resnet50-batch100.json", "docs/records/cpu-resnet50.json")
    found = pb.load_study(*files)
    assert [group.device for group in found.groups] == ["NVIDIA H200", "AMD EPYC"]
    assert "not comparable with group 1: GPU (none here, NVIDIA H200 in group 1)" in " ".join(
        str(found).split()
    )
    with pytest.raises(IncomparableError):
        pb.load_study(*files, strict=True)


def test_devices_that_measured_the_same_cell_stand_side_by_side():
    results = [*sweep_results((8, 64)), *sweep_results((8, 64), gpu=other_gpu())]
    text = to_text(summarise(merge(results)), 100)
    part = text[text.index("Devices side by side") :]
    assert "1: NVIDIA Test  2: NVIDIA Other" in part
    assert part.count("half") == 2


# --- differences of studies ---------------------------------------------------------------------


def study(seed: int, day: int, half: float = 1.0, sizes=(1, 8, 64), **options) -> list[CellResult]:
    return [
        cell_result({"eager": eager_s(n), "half": half_s(n) * half}, cell(n), seed, day, **options)
        for n in sizes
    ]


def test_equal_studies_have_few_false_changes_over_all_their_cells():
    found = [study_difference(study(seed, 1), study(seed, 2)) for seed in range(40)]
    changed = (Verdict.FASTER, Verdict.SLOWER)
    assert sum(any(r.speedup.verdict in changed for _, r in one.rows) for one in found) <= 2


def test_a_slower_row_is_found_in_its_cell():
    new = [*study(1, 2)[:2], *study(1, 2, half=1.05)[2:]]
    found = study_difference(study(1, 1), new)
    assert [(where.batch_size, one.backend) for where, one in found.slower] == [(64, "half")]
    assert "half of Net, shape 5, batch 64 is slower now: 0.95" in diff_text(found, 200)


def test_verdicts_are_simultaneous_over_all_cells():
    """One cell alone would be called slower, and is not among a hundred."""
    old, new = cell_result(NORMAL, day=1), cell_result(NORMAL, day=2, seed=3)
    alone = study_difference([old], [new]).cells[0].found.rows[0].speedup
    others = study(1, 1, sizes=range(10, 60)), study(1, 2, sizes=range(10, 60))
    among = study_difference([old, *others[0]], [new, *others[1]]).cells[0].found.rows[0].speedup
    assert among.low < alone.low
    assert alone.high < among.high


def test_cells_that_fail_or_are_missing_now_are_named():
    old = [*study(1, 1), cell_result(NORMAL, cell(128))]
    new = [*study(1, 2)[:1], failed(cell(8), "out of memory"), cell_result(NORMAL, cell(2))]
    found = study_difference(old, new)
    assert [(where.batch_size, why) for where, why in found.broken] == [(8, "out of memory")]
    assert [one.batch_size for one in found.only_old] == [64, 128]
    assert [one.batch_size for one in found.only_new] == [2]
    assert found.failing == ("Net, shape 5, batch 8",)


def test_a_study_with_one_backend_more_is_compared_with_the_older_one():
    more = [
        attrs.evolve(one, cell=attrs.evolve(one.cell, backends=("eager", "half", "compile")))
        for one in study(1, 2)
    ]
    assert len(study_difference(study(1, 1), more).cells) == 3


def test_other_conditions_are_refused_by_name_and_force_compares_them():
    old, new = study(1, 1), study(1, 2, torch="2.15.0")
    with pytest.raises(IncomparableError, match=r"torch \(2.14.1 before, 2.15.0 now\) in 3 cells"):
        study_difference(old, new)
    found = study_difference(old, new, force=True)
    assert diff_text(found).startswith("CONDITIONS DIFFER: torch (2.14.1 before")


def test_a_large_difference_shows_the_rows_that_changed():
    sizes = range(1, 25)
    new = [*study(1, 2, sizes=sizes)[:-1], *study(1, 2, 1.2, sizes=sizes)[-1:]]
    text = diff_text(study_difference(study(1, 1, sizes=sizes), new))
    assert "47 rows that are neither faster nor slower are not shown" in " ".join(text.split())
    assert len(text.splitlines()) < 20


# --- the check ----------------------------------------------------------------------------------


def test_a_check_fails_by_a_slow_down_that_is_clearly_beyond_its_limit():
    found = study_difference(study(1, 1), study(1, 2, half=1.08))
    assert not check_study(found, 0.03).passes
    assert check_study(found, 0.15).passes


def test_checks_of_rows_at_the_limit_fail_at_most_at_the_stated_rate():
    """A slow-down of exactly 3 % is allowed."""
    fails, rates = 0, set()
    for seed in range(40):
        found = study_difference(study(seed, 1), study(seed, 2, half=1.03))
        result = check_study(found, 0.03)
        fails += not result.passes
        rates.add(result.false_alarm_rate)
    assert rates == {0.05}
    assert fails <= 0.05 * 40


def test_a_check_of_nothing_or_of_a_failing_cell_does_not_pass():
    assert not check_study(study_difference(study(1, 1), []), 0.03).passes
    broken = [*study(1, 2)[:2], failed(cell(64))]
    assert not check_study(study_difference(study(1, 1), broken), 0.03).passes


def test_speed_ups_pass_on_a_machine_that_is_slower_as_a_whole():
    slower = [
        cell_result({"eager": 1.2 * eager_s(n), "half": 1.2 * half_s(n)}, cell(n), 1, 2)
        for n in (1, 8, 64)
    ]
    found = study_difference(study(1, 1), slower)
    assert not check_study(found, 0.03).passes
    assert check_study(found, 0.03, ("speed-up over the reference",)).passes


def test_a_row_that_was_not_interleaved_never_fails_a_check():
    old, new = (
        [attrs.evolve(one, data=attrs.evolve(data_of(one), schedule="sequential")) for one in found]
        for found in (study(1, 1), study(1, 2, half=2.0))
    )
    result = check_study(study_difference(old, new), 0.03)
    assert result.passes
    assert len(result.undecided) == 6
    assert result.found_from is None


# --- histories ----------------------------------------------------------------------------------


def changes(found, backend: str = "half", of: str = LATENCY) -> list[str]:
    (one,) = found
    series = next(s for s in one.series if (s.backend, s.of) == (backend, of))
    return [change.first_after[:10] for change in series.changes]


def test_a_regression_of_3_percent_in_a_history_of_ten_is_found_with_its_date():
    for seed in range(10):
        found = history(runs([NORMAL] * 6 + [REGRESSED] * 4, seed))
        assert changes(found) == ["2026-11-07"]
        assert changes(found, of=SPEEDUP) == ["2026-11-07"]
        assert changes(found, "eager") == []
    series = found[0].changes[0][0]
    assert series.changes[0].ratio.verdict is Verdict.SLOWER
    assert series.changes[0].ratio.low < 1 / 1.03 < series.changes[0].ratio.high
    assert series.changes[0].runs_after == 4


def test_ten_equal_runs_have_no_change():
    found = [history(runs([NORMAL] * 10, seed)) for seed in range(25)]
    assert sum(bool(one.changes) for (one,) in found) <= 1


def test_runs_that_shift_more_than_their_processes_have_no_false_change():
    found = [history(runs([NORMAL] * 10, seed, shift=0.02)) for seed in range(25)]
    assert sum(bool(one.changes) for (one,) in found) <= 1


def test_a_change_that_came_with_a_version_names_it():
    old = runs([NORMAL] * 6)
    new = runs([REGRESSED] * 10, torch="2.15.0")[6:]
    (found,) = history([*old, *new])
    assert [str(one) for one in found.changes[0][1].mismatches] == [
        "torch (2.14.1 before, 2.15.0 now)"
    ]
    assert "torch (2.14.1 before, 2.15.0 now)" in " ".join(
        to_text(summarise(merge([*old, *new]))).split()
    )


def test_the_order_of_the_files_does_not_matter():
    results = runs([NORMAL] * 6 + [REGRESSED] * 4)
    assert history(results[::-1]) == history(results)


def test_another_device_has_a_history_of_its_own():
    found = history([*runs([NORMAL] * 5), *runs([NORMAL] * 5, gpu=other_gpu())])
    assert [len(one.series[0].points) for one in found] == [5, 5]


def test_a_change_in_the_last_run_only_asks_for_another_run():
    text = to_text(summarise(merge(runs([NORMAL] * 9 + [{"eager": 1e-3, "half": 6e-4}]))), 200)
    assert "half is slower since 2026-11-10 12:00" in text
    assert "run it again to confirm" in text


def test_too_few_runs_are_said_to_be_too_few():
    text = to_text(summarise(merge(runs([NORMAL, REGRESSED]))))
    assert "too few runs to find a change: 4 are needed" in text


@pytest.mark.parametrize("schedule", ["restarts", "rounds"])
def test_runs_of_every_schedule_with_rounds_have_speed_ups(schedule):
    results = [
        attrs.evolve(one, data=attrs.evolve(data_of(one), schedule=schedule))
        for one in runs([NORMAL] * 4, replicas=1 if schedule == "restarts" else 3)
    ]
    (found,) = history(results)
    assert {series.of for series in found.series} == {LATENCY, SPEEDUP}


def test_runs_that_were_not_interleaved_have_latencies_only():
    results = [
        attrs.evolve(one, data=attrs.evolve(data_of(one), schedule="sequential"))
        for one in runs([NORMAL] * 4)
    ]
    (found,) = history(results)
    assert {series.of for series in found.series} == {LATENCY}


# --- reports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_the_text_is_wider_than_the_terminal(width):
    text = to_text(summarise(merge(everything())), width)
    assert max(map(len, text.splitlines())) <= width
    assert "out of memory" in text


def test_a_long_name_of_a_row_takes_no_room_from_the_figures():
    """It is a line of its own; the verdict is below the figures where 80 columns have no room."""
    name = "compile:dtype=float16,memory_format=channels_last,mode=max-autotune"
    times = {1: {"eager": 1e-3, name: 1e-3}, 8: {"eager": 4e-3, name: 2e-3}}
    results = [cell_result(one, cell(size), spread=0.02) for size, one in times.items()]
    lines = to_text(summarise(merge(results))).splitlines()
    assert lines[lines.index(name) - 1].split()[-2:] == ["1", "(ref.)"]
    assert lines[lines.index(name) + 2].strip().startswith("inconclusive")
    headings = next(line for line in lines if line.startswith("batch  "))
    assert headings.endswith("95 % CI")


def test_of_an_item_only_its_subject_is_bold():
    console = Console(force_terminal=True, file=io.StringIO(), width=80)
    console.print(item("half", "is noisy", 80))
    console.print(item("", "no subject", 80))
    bold = re.findall("\x1b\\[1m(.*?)\x1b", console.file.getvalue())
    assert bold == ["half: "]


def test_the_headline_is_the_crossover_of_the_fastest_row():
    text = to_text(summarise(merge(sweep_results())), 200)
    assert text.startswith(
        "Net, shape 5 on NVIDIA Test: half is faster than eager from batch 8 on (crossover "
    )


def hostile_results() -> list[CellResult]:
    """A study whose model, device, rows and failures try to inject markup."""
    found = []
    for size in (1, 8):
        where = cell(size, model=HOSTILE[0])
        one = cell_result({"eager": 1e-3, HOSTILE[2]: 5e-4}, where, gpu=other_gpu(HOSTILE[1]))
        found.append(one)
    return [*found, *(failed(cell(64, HOSTILE[0]), text) for text in HOSTILE)]


@pytest.mark.parametrize("results", [everything, hostile_results, sweep_results])
def test_the_html_report_is_well_formed_and_makes_no_requests(results):
    found = Page(to_html(summarise(merge(results()))))
    assert found.faults == []
    assert not found.all("img")
    assert "default-src 'none'" in found.all("meta")[1]["content"]
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_the_html_report_draws_each_row_with_its_interval_and_the_crossover():
    page = Page(to_html(summarise(merge(everything()))))
    curves = [one for one in page.all("g") if "curve" in one.get("class", "")]
    assert len(curves) == 4
    assert len([one for one in page.all("g") if "crossover" in one.get("class", "")]) == 1
    assert len([one for one in page.all("g") if "change" in one.get("class", "")]) == 2
    assert "half is slower since 2026-11-07 12:00" in page.text


def test_marks_of_the_sweep_plot_are_where_their_batches_are():
    found = sweep_plot(sweep())
    (mark,) = found.crossovers
    ticks = {tick.value: tick.at for tick in found.x_ticks}
    assert (mark.left, mark.right) == (ticks[4], ticks[8])
    assert mark.left < mark.at < mark.right
    half = found.curves[1]
    assert [dot.y for dot in half.dots] == sorted((dot.y for dot in half.dots), reverse=True)
    assert all(dot.high_y <= dot.y <= dot.low_y for dot in half.dots)


def test_the_bars_of_several_crossovers_are_below_each_other():
    results = [
        cell_result({"eager": eager_s(n), "half": half_s(n), "fast": half_s(n) * 0.9}, cell(n))
        for n in (1, 8, 64)
    ]
    first, second = sweep_plot(sweeps(results)[0]).crossovers
    assert second.y - first.y > 5  # pixels: the width of a bar
    assert "Bars at the top" in Page(to_html(summarise(merge(results)))).text


@pytest.mark.parametrize("sizes", [(8, 64), (1, 512), (8, 9)])
def test_labels_of_the_sweep_plot_differ(sizes):
    found = sweep_plot(sweep(sizes=sizes))
    labels = [rate_text(tick.value) for tick in found.y_ticks]
    assert len(set(labels)) == len(labels) > 1


def test_markdown_has_a_table_for_each_section_and_no_markup_of_others():
    text = to_markdown(summarise(merge(hostile_results())))
    assert "<script>" not in text.replace("\\<", "").replace("`", "")
    whole = to_markdown(summarise(merge(everything())))
    assert whole.count("### ") >= 5
    assert "| batch | latency |" in whole


def test_matplotlib_draws_a_sweep_and_a_history():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    summary = summarise(merge(everything()))
    axes = plots.plot_sweep(summary.groups[0].sweeps[0])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    (daily,) = summary.histories
    assert plots.plot_history(daily, "half").get_ylabel() == "latency (s)"
    with pytest.raises(RowNotFoundError, match="did you mean 'half'"):
        plots.plot_history(daily, "hal")
    pyplot.close("all")


# --- files and commands -------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Two folders of result files, without the definition of a study."""
    for name, results in (("old", study(1, 1)), ("new", study(1, 2, half=1.08))):
        (tmp_path / name).mkdir()
        for number, one in enumerate(results):
            text = json_format.to_json(data_of(one))
            (tmp_path / name / f"cell{number}.json").write_text(text)
    return str(tmp_path / "old"), str(tmp_path / "new")


def invoke(*args: str):
    return CliRunner().invoke(main, list(args))


def test_show_prints_the_study_and_writes_its_report(folders, tmp_path):
    found = invoke("study", "show", folders[0])
    assert found.exit_code == 0
    assert "half is faster than eager from batch 8 on" in " ".join(found.stdout.split())
    report = tmp_path / "report.html"
    written = invoke("study", "show", folders[0], "--html", str(report))
    assert (written.exit_code, written.stdout) == (0, "")
    assert written.stderr == f"Saved to {report}\n"
    assert report.read_text().startswith("<!doctype html>")
    assert "exists" in invoke("study", "show", folders[0], "--html", str(report)).stderr


def test_results_of_studies_are_json_without_their_samples(folders):
    document = json.loads(invoke("study", "merge", *folders, "--json").stdout)
    assert document["format"] == "precisionbench.study_results"
    assert document["groups"][0]["sweeps"][0]["rows"][1]["crossover"]["batch_size"] == 8
    assert "samples" not in json.dumps(document)


def test_diff_compares_two_folders_cell_by_cell(folders):
    found = invoke("diff", *folders)
    assert found.exit_code == 0
    assert "is slower now" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80
    found = invoke("diff", *folders, "--fail-if-slower")
    assert (found.exit_code, "slower than before: half of Net" in found.stderr) == (1, True)
    document = json.loads(invoke("diff", *folders, "--json").stdout)
    assert document["format"] == "precisionbench.study_difference"


def test_a_folder_is_not_compared_with_a_file(folders, tmp_path):
    found = invoke("diff", folders[0], str(tmp_path / "new/cell0.json"))
    assert found.exit_code == 2
    assert "is not a folder; give two folders" in found.stderr


def test_check_fails_with_one_where_a_row_is_slower_than_allowed(folders):
    found = invoke("study", "check", folders[1], "--against", folders[0], "--fail-above", "3%")
    assert found.exit_code == 1
    text = " ".join(found.stdout.split())
    assert text.startswith("Failed: 6 of 9 figures are slower by more than 3 %.")
    assert "at most 5 % of checks fail" in text
    assert invoke("study", "check", *folders[:1], "--against", folders[0]).exit_code == 0
    found = invoke("study", "check", folders[1], "--against", folders[0], "--fail-above", "20 %")
    assert found.exit_code == 0


def test_check_tests_thresholds_in_every_cell(folders):
    args = ("study", "check", folders[0], "--against", folders[0])
    found = invoke(*args, "--fail-under", "half>=1.05")
    assert found.exit_code == 1
    assert "Net, shape 5, batch 1: half measured 0.6011x eager" in found.stderr
    assert "batch 64" not in found.stderr
    assert invoke(*args, "--fail-under", "half>=0.5").exit_code == 0


@pytest.mark.parametrize("limit", ["3", "fast", "-3%", "100%"])
def test_a_limit_is_a_percentage(folders, limit):
    found = invoke("study", "check", folders[1], "--against", folders[0], "--fail-above", limit)
    assert found.exit_code == 2
    assert "write 3%" in found.stderr


def test_check_prints_markdown_and_json(folders):
    args = ("study", "check", folders[1], "--against", folders[0])
    text = invoke(*args, "--markdown").stdout
    assert text.startswith("**Failed: 6 of 9 figures are slower")
    assert "| cell | row | old | new | change | 95 % CI | verdict |" in text
    document = json.loads(invoke(*args, "--json").stdout)
    assert document["format"] == "precisionbench.study_check"
    assert len(document["slower"]) == 6


def test_studies_are_loaded_from_folders_files_comparisons_and_cells(folders, tmp_path):
    by_folder = pb.load_study(folders[0])
    files = [tmp_path / f"old/cell{n}.json" for n in range(3)]
    assert pb.load_study(*files).results == by_folder.results
    assert pb.load_study(*map(pb.load, files)).results == by_folder.results
    assert by_folder.diff(folders[0]).slower == ()
    assert repr(by_folder).startswith("Net, shape 5 on NVIDIA Test: half is faster")


def test_a_comparison_outside_of_a_study_is_a_cell_of_its_own():
    (result,) = pb.load_study(pb.Comparison(comparison_data())).results
    assert (result.cell.model, result.cell.batch_size) == ("Net", 4)
    assert pb.load_study(pb.Comparison(recorded("resnet50-five"))).sweeps == ()


def test_a_comparison_of_several_models_is_one_cell_with_a_reference_for_each_model():
    """Its rows were measured in common rounds, which cells of a study are not."""
    one = data_of(cell_result({"eager": 2e-3, "half": 1e-3, "new/eager": 1e-3}))
    several = attrs.evolve(
        one,
        study=None,
        references={"eager": "eager", "half": "eager", "new/eager": "new/eager"},
        workload=attrs.evolve(one.workload, model="old, new"),
    )
    found = pb.load_study(pb.Comparison(several))
    ((result,), sweeps_of_it) = found.results, found.sweeps
    assert (result.cell.model, sweeps_of_it) == ("old, new", ())
    assert str(found).count("1 (ref.)") == 2


def test_notes_on_the_intervals_of_many_cells_are_counted():
    results = [cell_result(NORMAL, cell(n), replicas=1) for n in (1, 8)]
    quick = [
        attrs.evolve(one, data=attrs.evolve(data_of(one), notes=("quick",))) for one in results
    ]
    noisy = cell_result(NORMAL, cell(64), spread=0.5)
    text = " ".join(to_text(summarise(merge([*quick, noisy]))).split())
    assert "4 of 6 rows: quick" in text
    assert "4 of 6 rows: run-to-run variance was not measured (one process)" in text
    assert "of 6 rows: wide CI: " in text
    assert "every row: quick" in to_text(summarise(merge(quick)))


def test_an_empty_folder_has_no_results(tmp_path):
    with pytest.raises(SpecError, match="there are no results"):
        pb.load_study(tmp_path)


# --- what is not there ---------------------------------------------------------------------------

CELL = cell(8)


def test_studies_without_a_common_cell_have_nothing_to_compare():
    found = StudyDiff(cells=(), broken=((CELL, "no memory"),), only_old=(CELL,), only_new=(CELL,))
    text = str(found)
    assert "Nothing to compare" in text
    assert f"{CELL.title} was measured before and fails now: no memory" in text
    assert f"only in the older study: {CELL.title}" in text
    assert f"only in the newer study: {CELL.title}" in text


def test_a_study_without_cells_says_so():
    assert study_text.headline([]) == "No cell is finished yet."


@pytest.mark.parametrize("command", ["show", "merge"])
def test_options_of_studies_that_exclude_each_other_are_refused(command, tmp_path):
    done = CliRunner().invoke(main, ["study", command, str(tmp_path), "--json", "--markdown"])
    assert done.exit_code == 2
    assert "exclude each other" in done.output
