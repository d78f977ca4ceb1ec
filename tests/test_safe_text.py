"""Text of others is harmless in every output: terminal, notebook, Markdown, CSV and HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from rich.console import Console

import precisionbench as pb
from hostile_text import (
    PIECES,
    assert_csv,
    assert_html,
    assert_markdown,
    assert_visible,
    replaced,
    texts,
)
from made_up_results import FP32_CONV, HALF_CONV, comparison, conv, evidence, layer
from precisionbench import safe_text
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.findings import FindingStatus, Number
from precisionbench.display import Records
from precisionbench.doctor.checks import MachineCheck, State
from precisionbench.doctor.text import to_text as doctor_text
from precisionbench.errors import PrecisionBenchError
from precisionbench.report import published as published_text
from precisionbench.report import rules as rules_text
from precisionbench.report.html.page import to_html
from precisionbench.report.progress import LogLines
from precisionbench.report.progress_live import LiveDisplay
from precisionbench.report.run_diff import to_text as diff_text
from precisionbench.results import Agreement, ComparisonData
from precisionbench.results.progress import Progress
from precisionbench.scriptcheck.check import Check
from precisionbench.scriptcheck.events import Ending, Place
from precisionbench.scriptcheck.text import to_text as check_text
from precisionbench.scriptcheck.violations import CheckData, Location, TimedModel, Violation
from precisionbench.workflows.diagnose import Diagnosis, GapLedger
from precisionbench.workflows.ladder import Ladder

SOURCE = Path(pb.__file__).parent
MLPERF = "mlperf-v4.1-h200-resnet50-offline"

# --- each output by hand ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet50, batch 8 ±0.1 %", "resnet50, batch 8 ±0.1 %"),
        ("\x1b[2Jcleared", "�[2Jcleared"),
        ("two\nlines\tand\rmore", "two lines and more"),
        ("\u202eright to left\u2069", "�right to left�"),
        ("zero\u200bwidth\ufeff", "zero�width�"),
        ("one\u2028two\x85three\xa0four", "one two three four"),
        ("\ud800", "�"),
        ("\u0338begins with a mark", "�begins with a mark"),
        ("e\u0301a" + "\u0301" * 99 + "b", "e\u0301a" + "\u0301" * 4 + "�b"),
        ("שלום 日本語", "שלום 日本語"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("می\u200cخواهم क्\u200dष", "می\u200cخواهم क्\u200dष"),
        ("日\u200d本\u200c語 a\u200db 👨\u200d", "日�本�語 a�b 👨�"),
    ],
)
def test_a_line_shows_all_that_is_in_it(text, shown):
    assert safe_text.line(text) == shown


def test_a_line_that_is_longer_than_any_name_is_cut():
    shown = safe_text.lines("before\n" + "é" * 1_000_000 + "\nafter")
    assert len(shown) < 21_000
    assert shown.endswith("é… (1,000,000 characters)\nafter")
    assert safe_text.lines(shown) == shown


def test_lines_keep_their_line_feeds():
    assert safe_text.lines("a\r\nb\n\x07c") == "a\nb\n�c"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("4.000 ms (±0.1 %)", "4.000 ms (±0.1 %)"),
        ("<img onerror=x>", r"\<img onerror=x\>"),
        ("![x](https://y)", r"!\[x\](https\://y)"),
        ("a|b `c` *d* _e_ ~~f~~ \\ &lt;", r"a\|b \`c\` \*d\* \_e\_ \~\~f\~\~ \\ \&lt;"),
        ("one\n\n# two", "one # two"),
        ("# one", r"\# one"),
        ("12. one", r"12\. one"),
        ("1.", r"1\."),
        ("-", r"\-"),
        (r"$\color{red}x$ for $5", r"\$\\color{red}x\$ for \$5"),
        ("- one", r"\- one"),
        ("-5", "-5"),
        ("--- ", r"\---"),
        ("www.evil.com, @all", r"www\.evil.com, `@`all"),
    ],
)
def test_markdown_shows_text_unchanged(text, written):
    assert safe_text.markdown(text) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("half:dtype=float16", "`half:dtype=float16`"),
        ("a`b", r"a\`b"),
        ("a|b", r"a\|b"),
        ("a\n\n# b", "`a  # b`"),
        (" ", ""),
    ],
)
def test_a_name_stays_within_its_code_span(name, written):
    assert safe_text.markdown_code(name) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("see https://a.b/c_d.", "see <https://a.b/c_d>."),
        ("(https://a.b/c_(d))", "(<https://a.b/c_(d)>)"),
        ("https://x)![](https://evil/i.png)", "<https://x)!%5B%5D(https://evil/i.png>)"),
        ("https://a/<b>|`", "<https://a/%3Cb%3E%7C%60>"),
        ("javascript:alert(1)", "javascript:alert(1)"),
    ],
)
def test_an_address_is_a_link_to_what_it_shows(text, written):
    assert safe_text.markdown_with_links(text) == written


def test_only_web_addresses_are_links():
    assert safe_text.markdown_link("https://a.b", "[x]") == r"[\[x\]](<https://a.b>)"
    assert safe_text.markdown_link("javascript:x", "title") == "title (javascript:x)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("half:dtype=float16", "half:dtype=float16"), ("$x^2$", r"\$x^2\$"), ("a\n\x1bb", "a\n�b")],
)
def test_a_plot_shows_text_unchanged(text, shown):
    assert safe_text.plot(text) == shown


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("half:dtype=float16", "half:dtype=float16"),
        ("=1+1", "'=1+1"),
        ("\t=1", "'=1"),
        ("-cmd", "'-cmd"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),
        ('a; "=1', "a; \"'=1"),
        (-5.0, -5.0),
        (None, None),
    ],
)
def test_a_cell_is_no_formula_and_a_number_stays_one(cell, written):
    assert safe_text.csv_cell(cell) == written


def test_reports_make_rich_text_in_one_place():
    packages = ("report", "report/html", "doctor", "cli", "scriptcheck", "workflows")
    for file in (path for package in packages for path in SOURCE.glob(f"{package}/*.py")):
        if file.name != "plain.py":
            assert not re.search(r"\bText\(", file.read_text(encoding="utf-8")), file.name


def test_commands_print_in_one_place():
    for file in SOURCE.glob("cli/*.py"):
        call = r"(?<![\w.])(?:print|click\.echo)\((?!\)|comparison\.to_csv\(\))"
        calls = re.findall(call, file.read_text(encoding="utf-8"))
        assert len(calls) == {"output.py": 2, "exit_codes.py": 1}.get(file.name, 0), file.name


# --- hostile text in every field ----------------------------------------------------------------

# Each example is one text in all fields; the explicit one has each piece.
EXAMPLES = 3
ALL_PIECES = " x ".join(PIECES)


def misaligned(dtype: str, kernel: str):
    """Evidence with findings and obstacles, which name layers and kernels."""
    return evidence(
        conv(1e-3, dtype, kernel, channels=50),
        layers=(layer("conv", 50, dtype=dtype), layer("stage.conv", 50, dtype=dtype)),
    )


def plain_data() -> ComparisonData:
    data = comparison(
        misaligned("float32", FP32_CONV),
        misaligned("float16", HALF_CONV),
        half_row={
            "agreement": Agreement((), ("the output is another",)),
            "warnings": ("mind this",),
            "details": {"engine": "built"},
        },
    )
    (images,) = data.workload.inputs
    # of two inputs no shape is refused, whatever the published number's text is
    workload = attrs.evolve(data.workload, model="resnet50", inputs=(images, images))
    return attrs.evolve(data, workload=workload, notes=("a note of the run",))


def plain_check() -> CheckData:
    place = Place("bench.py", 3)
    violation = Violation(
        "synchronisation",
        "",
        "the clock is read too early",
        FindingStatus.SUSPECTED,
        (Number("calls", 3.0, "count"),),
        (Location(place, "time.time()"),),
        "synchronise",
        "only the source says so",
    )
    timed = TimedModel(place, "Net", ("float32",), ("float32",), 1, 3, 0.1, 0.2)
    ending = attrs.evolve(Ending("raised"), place=place, says="ValueError: no")
    return CheckData("bench.py", (violation,), (timed,), 1, ending, notes=("a note",))


def test_a_script_without_a_call_of_a_model_is_answered_with_which_script_to_check():
    ending = attrs.evolve(plain_check().ending, kind="finished")
    found = attrs.evolve(plain_check(), breaches=(), timed=(), models=0, ending=ending)
    assert "Check the script that runs the model: precisionbench check SCRIPT" in check_text(found)


RECORD_TEXTS = (
    *("source_title", "source_url", "precision_note", "software", "framework", "metric_note"),
    *("quote", "notes", "origin", "variant", "input", "power_mode", "device"),
)


@cache
def plain_gap() -> GapLedger:
    return pb.explain_gap(Comparison(plain_data()), "eager", MLPERF)


@cache
def plain_diagnosis() -> Diagnosis:
    return pb.diagnose(Comparison(plain_data()))


class Case:
    """Records whose every text is changed in one way."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self.change = change
        self.comparison = Comparison(replaced(plain_data(), change))
        self.rows = self.comparison.results
        record = pb.published.get(MLPERF)
        # the address keeps its beginning, as the reader demands
        known = {name: f"{getattr(record, name) or ''}{change('x')}" for name in RECORD_TEXTS}
        self.record = attrs.evolve(record, model=change("resnet50"), **known)
        self.gap = replaced(plain_gap(), change)

    def texts(self) -> Iterator[str]:
        """Everything that is printed."""
        found = self.comparison
        yield str(found)
        yield str(pb.diagnose(found))
        yield str(replaced(plain_diagnosis(), self.change))
        yield str(pb.explain_gap(found, self.rows[0].backend, self.record))
        yield str(self.gap)
        yield str(Ladder.of(found, self.rows[0].backend))
        yield diff_text(found.against(found, force=True))
        yield rules_text.to_text({row.backend: found.under_rules(row.backend) for row in self.rows})
        yield published_text.to_text([self.record])
        yield published_text.card_text(self.record)
        yield check_text(replaced(plain_check(), self.change))
        noise = MachineCheck("noise", State.ATTENTION, "too much", "wait")
        yield doctor_text([replaced(noise, self.change)], 0.01)
        yield str(PrecisionBenchError(self.change("reason"), self.change("remedy")))
        for one in self.objects():
            yield repr(one)
            yield str(one)
        yield from self.progress()

    def objects(self) -> Iterator[Any]:
        """What is shown at a prompt and in notebooks, one of each kind of display."""
        found, first = self.comparison, self.rows[0].backend
        yield found
        yield replaced(plain_diagnosis(), self.change)
        yield self.gap
        yield Ladder.of(found, first)
        yield found.against(found, force=True)
        yield Check(**attrs.asdict(replaced(plain_check(), self.change), recurse=False))
        yield Records([self.record])
        yield found.under_rules(first)
        yield from (self.record, found.failures[0], self.rows[1], found.data.workload)

    def progress(self) -> Iterator[str]:
        name = self.change("half")
        steps = [
            Progress(name, "preparing", 1, 2, step=self.change("step")),
            Progress(name, "failed", 1, 2, message=self.change("message")),
        ]
        for display in (LogLines, lambda out: LiveDisplay(Console(file=out, width=100))):
            out = io.StringIO()
            with display(out) as on_progress:
                for step in steps:
                    on_progress(step)
            yield out.getvalue()

    def outputs(self) -> tuple[list[str], list[str], list[str]]:
        """Markdown, HTML and CSV."""
        return list(self.markdown()), list(self.html()), [self.comparison.to_csv()]

    def markdown(self) -> Iterator[str]:
        found = self.comparison
        yield found.to_markdown()
        yield self.gap.to_markdown()
        yield rules_text.to_markdown(
            {row.backend: found.under_rules(row.backend) for row in self.rows}
        )

    def html(self) -> Iterator[str]:
        yield from (one._repr_html_() for one in self.objects())
        yield to_html(self.comparison.data, self.gap.rows)


@cache
def harmless() -> tuple[list[str], list[str], list[str]]:
    return Case(lambda text: f"{text} x").outputs()


def in_every_field(text: str) -> Case:
    return Case(lambda known: f"{text}{known}{text}")


CHECKS = (assert_markdown, assert_html, assert_csv)


@settings(derandomize=True, max_examples=EXAMPLES)
@given(texts)
@example(ALL_PIECES)
def test_hostile_text_is_harmless_in_every_output(text):
    case = in_every_field(text)
    for printed in case.texts():
        assert_visible(printed)
    for made, others, check in zip(case.outputs(), harmless(), CHECKS, strict=True):
        for output, other in zip(made, others, strict=True):
            check(output, other)
