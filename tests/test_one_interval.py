"""Every form of a result shows the same interval of a latency, and none that is of no use.

The case is two workers of a row that differ by a factor of three, each steady.
"""

from __future__ import annotations

import csv
import io
import json
import re

import attrs
import pytest
from click.testing import CliRunner

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench._internal.interval_text import ends, span
from precisionbench.analysis.run_diff import difference
from precisionbench.cli import main
from precisionbench.report import run_diff
from precisionbench.report.progress_state import speedups_text
from precisionbench.report.text import to_text
from precisionbench.results import BackendResult, Block, ComparisonData, Measurement, json_format
from precisionbench.rules import statements
from precisionbench.statistics import Interval

LEVELS = {"eager": (0.010, 0.030), "half": (0.008, 0.024)}


# Workers that differ by a factor of 30: the interval of the speed-up has ends of no use.
FAR_APART = {"eager": (0.010, 0.300), "half": (0.008, 0.240)}
UNUSABLE = re.compile(r"0\.00000\d|\d{3},\d{3}")


def run(levels: dict[str, tuple[float, ...]]) -> ComparisonData:
    """30 rounds of two rows whose replicas have these levels, in seconds."""
    base = comparison_data(schedule="rounds")
    results = tuple(
        attrs.evolve(row, agreement=None, measurement=steady(row, levels[row.backend]))
        for row in base.results
    )
    return attrs.evolve(base, results=results)


def steady(row: BackendResult, levels: tuple[float, ...]) -> Measurement:
    blocks = tuple(
        Block(round_, replica, replica, (level_s,) * 5)
        for round_ in range(30)
        for replica, level_s in enumerate(levels)
    )
    return attrs.evolve(row.measurement, blocks=blocks)


@pytest.fixture
def data() -> ComparisonData:
    return run(LEVELS)


def test_the_interval_holds_both_workers(data):
    for row in data.results:
        low_s, high_s = LEVELS[row.backend]
        assert row.latency.low < low_s
        assert row.latency.high > high_s


def test_the_throughput_has_the_interval_of_the_latency(data):
    for row in data.results:
        assert row.throughput.low == pytest.approx(4 / row.latency.high)
        assert row.throughput.high == pytest.approx(4 / row.latency.low)


@pytest.mark.parametrize("levels", [LEVELS, FAR_APART], ids=["3x", "30x"])
@pytest.mark.parametrize("form", ["text", "wide text", "Markdown", "HTML", "notebook"])
def test_what_is_shown_says_how_wide_it_is_and_why(levels, form, tmp_path):
    text = shown(run(levels), form, tmp_path)
    assert len(re.findall(r"(>|&gt;)100%", text)) == 2
    assert "run-to-run variance is too large" in text
    assert not UNUSABLE.search(text.partition("<script")[0])


def shown(data: ComparisonData, form: str, folder) -> str:
    """The comparison in a form for people."""
    comparison = pb.Comparison(data)
    if form == "HTML":
        comparison.to_html(folder / "report.html")
        page = (folder / "report.html").read_text()
        return re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    if form == "Markdown":
        return comparison.to_markdown()
    if form == "notebook":
        return comparison._repr_html_()
    return " ".join(to_text(data, 200 if form == "wide text" else 80).split())


def csv_lines(data: ComparisonData) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(pb.Comparison(data).to_csv())))


def test_csv_has_the_interval_in_full(data):
    for line, row in zip(csv_lines(data), data.results, strict=False):
        assert float(line["latency_low_s"]) == row.latency.low
        assert float(line["latency_high_s"]) == row.latency.high


def test_csv_has_no_end_of_a_speed_up_that_is_of_no_use():
    line = csv_lines(run(FAR_APART))[1]
    assert (line["backend"], line["verdict_reason"]) == ("half", "processes_differ")
    assert (line["speedup_low"], line["speedup_high"]) == ("", "")


def test_json_gives_the_same_interval_when_it_is_read(data):
    again = json_format.from_json(json_format.to_json(data))
    assert [row.latency for row in again.results] == [row.latency for row in data.results]


def test_rules_state_the_same_interval(data):
    for row in data.results:
        ours = [one for one in statements(row) if one.rule == "precisionbench"]
        assert (ours[0].low, ours[0].high) == (row.latency.low, row.latency.high)
        assert ours[1].low == pytest.approx(4 / row.latency.high)


def test_there_is_no_verdict_and_a_threshold_is_missed(data, tmp_path):
    comparison = pb.Comparison(data)
    found = comparison.speedup("half")
    assert (found.verdict.value, found.reason) == ("inconclusive", "processes_differ")
    comparison.save(tmp_path / "result.json")
    arguments = ["show", str(tmp_path / "result.json"), "--fail-under", "half>=1.1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "run-to-run variance is too large" in " ".join(done.stderr.split())
    assert not UNUSABLE.search(done.stderr)


def test_the_rules_of_a_saved_result_have_it_as_json(data, tmp_path):
    pb.Comparison(data).save(tmp_path / "result.json")
    arguments = ["show", str(tmp_path / "result.json"), "--rules", "--json"]
    rows = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert str(data.results[0].latency.high) in json.dumps(rows)


def test_a_diff_and_the_progress_print_no_such_interval():
    data = run(FAR_APART)
    found = difference(data, data)
    assert {row.speedup.reason for row in found.rows} == {"processes_differ"}
    assert not UNUSABLE.search(run_diff.to_text(found))
    live = {"half": Interval(1.25, 1.26e-9, 248_000.0)}
    assert speedups_text(live) == "half 1.2x (<0.01 to >1,000)"


def test_an_end_far_from_the_value_is_a_bound():
    assert ends(Interval(1.0, 1.26e-9, 248_000.0)) == ("<0.01", ">100")
    assert ends(Interval(1.0, 0.9, 248_000.0)) == ("0.9", ">100")
    assert span(Interval(2.0, 1.9, 2.1)) == "1.9 to 2.1"
