"""The table as people read it."""

from __future__ import annotations

import csv
import io
import random
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import precisionbench as pb
from made_up_results import comparison_data, measurement
from precisionbench import errors
from precisionbench.report import formatting, rows
from precisionbench.report.text import to_text
from precisionbench.results import Agreement, Passes, TensorAgreement, Verdict
from precisionbench.statistics import Interval


@pytest.fixture
def comparison() -> pb.Comparison:
    return pb.Comparison(comparison_data())


def with_half(**changes) -> pb.Comparison:
    data = comparison_data()
    eager, half = data.results
    return pb.Comparison(attrs.evolve(data, results=(eager, attrs.evolve(half, **changes))))


def test_the_table_shows_every_figure_and_failure(comparison):
    text = str(comparison)
    assert "Net, batch 4 on NVIDIA Test" in text
    header, eager, half = (
        next(line for line in text.splitlines() if line.startswith(start))
        for start in ("backend", "eager", "half")
    )
    assert header.replace("95 % CI", "CI").split() == [
        *("backend", "latency", "±", "items/s", "speed-up", "CI", "rel.", "error"),
    ]
    assert eager.split() == ["eager", "10.00", "ms", "0.1%", "400.0", "1", "(ref.)", "-", "(ref.)"]
    assert half.split()[:6] == ["half", "4.000", "ms", "0.1%", "1,000", "2.50x"]
    assert half.split()[6:] == ["2.500", "to", "2.500", "1.0e-03"]
    assert "half: mind this" in text
    assert "Not available: apex-amp (requires Apex); get it" in text
    assert "speed-ups are inconclusive" in " ".join(text.split())


def test_the_table_fits_eighty_columns(comparison):
    long = pb.Comparison(
        attrs.evolve(
            comparison.data,
            results=(
                comparison.results[0],
                attrs.evolve(comparison.results[1], backend="torch2trt:" + "option=value," * 9),
            ),
        )
    )
    assert max(map(len, str(long).splitlines())) <= 80
    assert "1.0e-03" in str(long)


def test_the_text_is_plain_despite_force_color(comparison, monkeypatch):
    plain = str(comparison)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert str(comparison) == plain


def test_printing_draws_no_random_numbers(comparison):
    state = random.getstate()
    str(comparison)
    assert random.getstate() == state


@pytest.mark.parametrize("width", [60, 80, 200])
def test_narrow_and_wide_terminals(comparison, width):
    text = to_text(comparison.data, width)
    assert max(map(len, text.splitlines())) <= width


def test_very_narrow_terminals_wrap_lines_and_keep_all_figures(comparison):
    assert to_text(comparison.data, 20) == to_text(comparison.data, 40)
    assert "1.0e-03" in to_text(comparison.data, 20)


LONG = "compile:dtype=bfloat16,freezing=true,memory_format=channels_last"


def renamed(data, name: str = LONG):
    eager, half = data.results
    return attrs.evolve(data, results=(eager, attrs.evolve(half, backend=name)))


def test_long_names_break_at_their_commas(comparison):
    lines = to_text(renamed(comparison.data), 80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("compile"))
    assert lines[start].split() == [
        "compile:dtype=bfloat16,", "4.000", "ms", "0.1%", "1,000", "2.50x", "1.0e-03"
    ]  # fmt: skip
    assert lines[start + 1 : start + 3] == ["  freezing=true,", "  memory_format=channels_last"]


def test_rows_become_lists_if_the_table_is_too_wide(comparison):
    text = to_text(renamed(comparison.data), 40)
    assert (
        "compile:dtype=bfloat16,freezing=true,\n"
        "  memory_format=channels_last\n"
        "  latency 4.000 ms, ± 0.1%,\n"
        "  items/s 1,000, speed-up 2.50x,\n"
        "  rel. error 1.0e-03\n"
    ) in text
    assert "───" not in text


def test_a_very_long_name_does_not_widen_the_table(comparison):
    lines = to_text(renamed(comparison.data, "x" * 1000), 100).splitlines()
    assert any("4.000 ms" in line and line.startswith("xxx") for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_word_that_fits_a_line_is_cut(comparison, width):
    noted = attrs.evolve(renamed(comparison.data), notes=(f"the row {LONG} has a note",))
    text = to_text(noted, width)
    for piece in ("compile:", "dtype=bfloat16,", "freezing=true,", "memory_format=channels_last"):
        assert text.count(piece) >= 2, piece


def with_energy(data):
    passes = Passes(peak_allocated_bytes=180_000_000, energy_j=0.5)
    eager, half = data.results
    return attrs.evolve(data, results=(eager, attrs.evolve(half, passes=passes)))


def test_memory_and_energy_are_shown_on_wide_terminals(comparison):
    data = with_energy(comparison.data)
    table = to_text(data, 100)
    assert re.search(r"peak memory +energy\n", table)
    assert re.search(r"1.0e-03 +180 MB  125 mJ/item\n", table)
    assert "energy" not in to_text(data, 60)
    assert "energy" not in to_text(comparison.data, 200), "nobody measured it"


def test_memory_and_energy_are_shown_on_request(comparison):
    text = to_text(with_energy(comparison.data), 60, wide=True)
    assert "180 MB" in text
    assert "125 mJ/item" in text
    assert max(map(len, text.splitlines())) <= 60


def test_a_note_on_every_row_does_not_list_their_names():
    data = comparison_data()
    eager, half = data.results
    three = (eager, half, attrs.evolve(half, backend="half#2"))
    rows = tuple(attrs.evolve(row, warnings=("same for all",)) for row in three)
    assert "every row: same for all" in to_text(attrs.evolve(data, results=rows))


def interrupted(data):
    def cut(row):
        return attrs.evolve(row, measurement=attrs.evolve(row.measurement, ended_by="interrupted"))

    return attrs.evolve(data, results=tuple(map(cut, data.results)))


def test_the_first_note_of_an_interrupted_run_says_so(comparison):
    data = interrupted(comparison.data)
    sentence = "the run was interrupted: 12 rounds were finished; labels are not verified"
    assert rows.notes(data)[0] == ([], sentence)
    assert "the run was interrupted" in pb.Comparison(data).to_markdown()
    assert "interrupted" not in str(comparison)


def test_a_very_wide_interval_is_shown_as_over_100_percent():
    assert formatting.half_width(Interval(1.0, 0.1, 400.0)) == "±>100%"


def test_names_are_never_parsed_as_markup():
    data = comparison_data()
    workload = attrs.evolve(data.workload, model="[bold]Net[/bold] :smile:")
    text = str(pb.Comparison(attrs.evolve(data, workload=workload)))
    assert "[bold]Net[/bold] :smile:" in text


def test_markdown_is_a_table_with_everything_escaped():
    data = comparison_data()
    workload = attrs.evolve(data.workload, model="<script>|`*_Net")
    markdown = pb.Comparison(attrs.evolve(data, workload=workload)).to_markdown()
    assert r"\<script\>\|\`\*\_Net" in markdown
    assert (
        "| `half` | 4.000 ms | ±0.1% | 1,000 | 2.50x | 2.500 to 2.500 "
        "| inconclusive (not interleaved) | 1.0e-03 |" in markdown
    )
    assert "- Not available: apex-amp (requires Apex); get it" in markdown
    assert "- `half`: mind this" in markdown


def test_csv_has_every_row_in_full_precision(comparison):
    eager, half, apex = csv.DictReader(io.StringIO(comparison.to_csv(), newline=""))
    assert [row["backend"] for row in (eager, half, apex)] == ["eager", "half", "apex-amp"]
    assert float(half["latency_s"]) == comparison["half"].latency.value
    assert float(half["speedup_low"]) == comparison.speedup("half").low
    assert half["verdict_reason"] == "not_interleaved"
    assert float(half["relative_l2"]) == 1e-3
    assert half["energy_j"] == ""
    assert (apex["failure"], apex["latency_s"]) == ("needs Apex", "")


def test_no_csv_cell_is_read_as_a_formula(comparison):
    failed = attrs.evolve(comparison.failures[0], reason='=HYPERLINK("http://x")')
    odd = pb.Comparison(attrs.evolve(comparison.data, failures=(failed,)))
    rows = list(csv.DictReader(io.StringIO(odd.to_csv(), newline="")))
    assert rows[-1]["failure"] == """'=HYPERLINK("http://x")"""


def test_a_note_on_several_rows_is_shown_once(comparison):
    rows = tuple(attrs.evolve(row, warnings=("same for all",)) for row in comparison.results)
    both = pb.Comparison(attrs.evolve(comparison.data, results=rows))
    assert str(both).count("same for all") == 1
    assert "eager, half: same for all" in str(both)
    assert "- `eager`, `half`: same for all" in both.to_markdown()


def test_a_rows_name_cannot_break_a_markdown_table(comparison):
    rows = (comparison.results[0], attrs.evolve(comparison.results[1], backend="x:path=a|b`c"))
    odd = pb.Comparison(attrs.evolve(comparison.data, results=rows))
    assert r"| x:path=a\|b\`c |" in odd.to_markdown()


def test_a_result_without_rows_shows_its_failures(comparison):
    empty = pb.Comparison(attrs.evolve(comparison.data, results=(), reference="apex-amp"))
    assert str(empty).startswith("No row could be measured.")
    assert "Not available: apex-amp (requires Apex); get it" in str(empty)
    assert "backend  latency" not in str(empty)
    assert "Could not run" in empty.to_markdown()


def test_throughput_is_in_calls_if_the_batch_size_is_unknown(comparison):
    data = comparison.data
    workload = attrs.evolve(data.workload, batch_size=None)
    rows = tuple(attrs.evolve(row, batch_size=None) for row in data.results)
    unknown = pb.Comparison(attrs.evolve(data, workload=workload, results=rows))
    assert unknown["half"].throughput is None
    assert "calls/s" in str(unknown)
    assert "250.0" in str(unknown)


def test_non_finite_outputs_are_shown_instead_of_the_error():
    tensor = TensorAgreement("", (4, 5), "float16", 1e-3, 0.9, None, 0.1, 1234)
    assert "1,234 non-finite" in str(with_half(agreement=Agreement((tensor,))))


def test_an_output_of_another_shape_is_shown_and_explained():
    text = str(with_half(agreement=Agreement((), ("output has shape (1,), the reference's (2,)",))))
    assert "see notes" in text
    assert "half: output has shape (1,)" in text


def row_of(text: str, name: str = "half") -> str:
    """The line of a row in the table."""
    return next(line for line in text.splitlines() if re.match(rf"{name} +[\d.]+ ms", line))


def test_an_output_without_figures_is_a_dash():
    assert row_of(str(with_half(agreement=None))).endswith("-")


def test_an_output_without_one_finite_element_is_explained():
    tensor = TensorAgreement("", (4, 5), "float16", None, None, None, None, 0)
    text = str(with_half(agreement=Agreement((tensor,))))
    assert row_of(text).endswith("see notes")
    assert "half: the output has no finite element to compare" in text


def test_an_inline_speedup_has_no_verdict(comparison):
    speedup = comparison.speedup("half")
    assert (speedup.value, speedup.low, speedup.high) == pytest.approx((2.5, 2.5, 2.5), rel=1e-3)
    assert (speedup.verdict, speedup.reason) == (Verdict.INCONCLUSIVE, "not_interleaved")
    assert speedup.verdict == "inconclusive"
    assert comparison.speedup("eager").value == 1


def test_a_speedup_interval_is_as_wide_as_both_rows(comparison):
    wide = with_half(measurement=measurement(*[0.004] * 6, *[0.005] * 6))
    speedup = wide.speedup("half")
    assert speedup.low == pytest.approx(2.0, rel=0.02)
    assert speedup.high == pytest.approx(2.5, rel=0.02)


def test_without_the_reference_there_is_no_speedup(comparison):
    data = attrs.evolve(comparison.data, reference="apex-amp")
    without = pb.Comparison(data)
    with pytest.raises(errors.BackendUnavailableError, match="apex-amp: needs Apex; get it"):
        without.speedup("half")
    assert "2.50x" not in str(without)


def test_a_failed_row_raises_its_own_reason(comparison):
    with pytest.raises(errors.BackendUnavailableError) as caught:
        comparison["apex-amp"]
    assert str(caught.value) == "apex-amp: needs Apex; get it"
    assert caught.value.requirement == "Apex"


@pytest.mark.parametrize("name", ["annotations", "one_line", "no_such_error"])
def test_a_file_can_only_name_our_own_errors(comparison, name):
    failures = (attrs.evolve(comparison.failures[0], error=name),)
    tampered = pb.Comparison(attrs.evolve(comparison.data, failures=failures))
    with pytest.raises(errors.PrecisionBenchError, match="apex-amp: needs Apex; get it"):
        tampered["apex-amp"]


def test_a_comparison_is_a_collection_of_measured_rows(comparison):
    assert [row.backend for row in comparison] == ["eager", "half"]
    assert len(comparison) == 2
    assert "half:dtype=float16" in comparison
    assert "apex-amp" not in comparison, "it could not be measured"
    assert 0 not in comparison
    with pytest.raises(KeyError, match="rows are selected by name, not by 0"):
        comparison[0]


def test_an_unknown_row_lists_the_known_rows(comparison):
    with pytest.raises(KeyError, match="there is no row 'hlaf'; did you mean 'half'"):
        comparison["hlaf"]


def test_a_comparison_describes_itself(comparison):
    assert repr(comparison).startswith("Net, batch 4 on NVIDIA Test\n")
    assert comparison != "something else"


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.0100861, 0.01008, 0.01009), "10.09 ms"),
        (Interval(0.0100861, 0.0099, 0.0103), "10.1 ms"),
        (Interval(0.0100861, 0.005, 0.02), "10 ms"),
        (Interval(12.345, 12.3449, 12.3451), "12.35 s"),
        (Interval(4.2e-5, 4.2e-5, 4.2e-5), "42.00 µs"),
        (Interval(5e-10, 5e-10, 5e-10), "0.5000 ns"),
    ],
)
def test_a_time_has_the_digits_that_its_interval_supports(interval, text):
    assert formatting.duration(interval) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(3174.6, 4, "3,175"), (9999.9, 4, "10,000"), (0.0, 3, "0"), (1234567.0, 2, "1,200,000")],
)
def test_significant_digits(value, digits, text):
    assert formatting.significant(value, digits) == text


@given(st.floats(1e-9, 1e6), st.floats(0, 0.5))
def test_a_half_width_is_never_rounded_down(value, width):
    interval = Interval(value, value * (1 - width), value * (1 + width))
    shown = float(formatting.half_width(interval).strip("±%"))
    assert shown >= interval.relative_half_width * 100 - 1e-9


def test_an_exact_zero_error_is_zero():
    assert formatting.scientific(0.0) == "0"
