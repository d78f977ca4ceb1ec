"""What stands around the table: verdicts in words, findings by cause, rows that cannot run."""

from __future__ import annotations

import re

import attrs
import pytest

from made_up_results import (
    CLEAN,
    HALF_CONV,
    LAYOUT,
    comparison,
    comparison_data,
    conv,
    evidence,
    findings,
    recorded,
)
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Finding, FindingStatus
from precisionbench.report.diagnosis import to_text as diagnosis_text
from precisionbench.report.findings import brief, by_cause
from precisionbench.report.text import to_text
from precisionbench.results import BackendFailure, ComparisonData
from precisionbench.results.evidence import Kernel
from precisionbench.statistics import Interval
from test_headline import run

pytestmark = pytest.mark.uncounted


def section(text: str, title: str) -> str:
    return text.partition(f"\n{title}\n")[2].partition("\n\n")[0]


def heading(text: str) -> str:
    """The first line of the table."""
    return next(line for line in text.splitlines() if line.startswith("backend "))


# --- verdicts and intervals -----------------------------------------------------------------------


def test_the_interval_of_the_speed_up_is_shown_where_there_is_room():
    data = recorded("resnet50-five")
    assert "95 % CI" not in heading(to_text(data, 80))
    assert "95 % CI" in heading(to_text(data, 100))
    assert re.search(r"4\.27x +4\.235 to 4\.311 +7\.2e-04", to_text(data, 100))
    assert re.search(r"speed-up 4\.27x,\s+95 % CI 4\.235 to 4\.311", to_text(data, 80, wide=True))


def test_a_verdict_that_is_none_stands_in_a_column_or_below_the_name():
    data = run(half=1.02, noise=0.2)
    words = "inconclusive (CI includes 1)"
    assert re.search(rf"^half .* {re.escape(words)}", to_text(data, 120), re.MULTILINE)
    assert "verdict" in heading(to_text(data, 120))
    many = run(noise=0.2, **{f"half:memory_format={name}": 1.02 for name in ("a", "b")})
    text = to_text(many, 80)
    assert "verdict" not in heading(text)
    assert text.count(f"\n  {words}\n") == 2
    assert all(sign not in to_text(data) for sign in ("x ?", "x *", "x =", "x ~"))


def test_a_column_without_figures_is_left_out():
    data = comparison_data()
    assert "95 % CI" not in heading(to_text(attrs.evolve(data, results=data.results[:1]), 200))


def test_clear_verdicts_need_no_words():
    text = to_text(run(half=2.0, other=0.5), 200).partition("backend")[2]
    assert "verdict" not in text
    assert "faster" not in text


# --- findings -------------------------------------------------------------------------------------


def finding(cause: str, row: str, status: FindingStatus = FindingStatus.SUSPECTED) -> Finding:
    return Finding(cause, row, f"title of {cause}", status, Interval(2, 1, 2), (), f"fix {cause}")


def test_at_most_three_causes_stand_below_the_table_each_once():
    found = [finding(cause, row) for cause in "abcd" for row in ("x", "y", "z")]
    texts = brief(found)
    assert [about for about, _ in texts] == ["in 3 rows"] * 3
    assert texts[0][1] == "title of a, suspected in x, up to 2x without it; fix a"


def test_what_was_ruled_out_is_not_below_the_table():
    assert brief([finding("a", "x", FindingStatus.RULED_OUT)]) == []


def test_findings_of_one_cause_stand_together_in_the_order_of_the_first():
    found = [finding("b", "x"), finding("a", "x"), finding("b", "y")]
    assert [[one.row for one in group] for group in by_cause(found)] == [["x", "y"], ["x"]]


def test_the_table_and_the_explanation_name_each_cause_once():
    data = recorded("resnet50-five")
    title = "layout conversions around convolutions"
    table = section(to_text(data, 200), "Findings")
    assert table.count(title) == 1
    assert "in 3 rows: layout conversions around convolutions, confirmed in half" in table
    explained = diagnosis_text(diagnosis_of(data)).partition("Ten questions")[0]
    assert explained.lower().count(title) == 1
    assert explained.count("docs/causes/layout-conversions.md") == 1


def test_without_findings_there_is_no_section():
    assert "Findings" not in to_text(comparison(**CLEAN))


# --- no verdict, no accusation --------------------------------------------------------------------


def layouts() -> ComparisonData:
    """`half` converts layouts around its convolution."""
    extra = (Kernel(LAYOUT, 2.0, 0.2e-3),)
    half = evidence(conv(0.3e-3, "float16", HALF_CONV, extra=extra))
    return attrs.evolve(comparison(CLEAN["base"], half), noise_floor=0.001)


def to_and_fro(data: ComparisonData) -> ComparisonData:
    """The same with a second row that is a tenth as fast in every other round."""
    base, half = data.results
    jumpy = tuple(
        attrs.evolve(block, samples=(1e-4 if block.round % 2 else 1e-2,) * 5)
        for block in half.measurement.blocks
    )
    changed = attrs.evolve(half, measurement=attrs.evolve(half.measurement, blocks=jumpy))
    return attrs.evolve(data, results=(base, changed))


def test_an_inconclusive_row_is_not_accused():
    jumpy = to_and_fro(layouts())
    assert speedups(jumpy)["half"].reason == "includes_1"
    assert findings(jumpy, "layout-conversions") == []
    assert findings(layouts(), "layout-conversions")


def short_answer(data, topic: str) -> str:
    return next(one.short for one in diagnosis_of(data).answers if one.topic == topic)


def test_nothing_is_found_only_where_something_was_looked_at():
    assert short_answer(run(half=2.0), "slowed by") == "not known: not profiled"
    assert short_answer(comparison(**CLEAN), "slowed by") == "nothing found"
    half_seen = comparison(None, CLEAN["half"])
    assert short_answer(half_seen, "slowed by") == "nothing found; not profiled: eager"


def test_the_ten_answers_are_a_line_each_where_they_are_short():
    text = diagnosis_text(diagnosis_of(recorded("resnet50-five")), 140)
    lines = section(f"\n{text}", "Ten questions").splitlines()
    assert len(lines) == 10
    ceiling = "typical 3.8x, at most 6.6x; measured 4.27x; INT8/FP8 at most 13x"
    assert f"  half-precision ceiling  {ceiling}" in lines


def test_pages_are_not_broken_at_their_hyphens():
    for width in (40, 80):
        text = diagnosis_text(diagnosis_of(recorded("resnet50-five")), width)
        assert "docs/causes/layout-conversions.md" in text


# --- rows that cannot run -------------------------------------------------------------------------


def failure(name: str, error: str = "BackendUnavailableError", **more: str) -> BackendFailure:
    return BackendFailure(name, name, {}, error, more.get("reason", "needs x"), "get it")


@pytest.mark.parametrize("width", [80, 200])
def test_rows_that_are_not_available_are_one_line_together(width):
    rows = (failure("apex-amp"), failure("torch2trt"), failure("bad", "ExecutionError", reason="e"))
    text = to_text(comparison_data(failures=rows), width)
    assert "Not available: apex-amp (requires x), torch2trt (requires x); " in text
    assert "`precisionbench backends` lists remedies" in " ".join(text.split())
    assert section(text, "Could not run") == "  bad: e; get it"
