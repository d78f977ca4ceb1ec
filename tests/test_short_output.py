"""What a terminal shows of a long result: the answer first, each cause once, a few notes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

import precisionbench as pb
from made_up_results import comparison_data, recorded
from precisionbench.cli import main
from precisionbench.report.diagnosis import to_text

pytestmark = pytest.mark.uncounted

RECORDS = Path(__file__).parents[1] / "docs" / "records"
RESNET = str(RECORDS / "h200-resnet50-batch100.json")
ANSWER = "half:memory_format=channels_last is fastest: 4.69x eager"
# A terminal of 80x24 as rich reads it from the environment.
TERMINAL = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}


def run(*args: str, **environ: str) -> str:
    done = CliRunner(env=environ).invoke(main, args)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def noisy(tmp_path) -> str:
    """A file of a comparison with nine notes on the whole run."""
    notes = tuple(f"note {n}" for n in range(9))
    pb.Comparison(comparison_data(notes=notes)).save(tmp_path / "r.json")
    return str(tmp_path / "r.json")


def test_a_text_longer_than_the_terminal_ends_with_the_headline():
    shown = run("show", RESNET, **TERMINAL)
    assert shown.count(ANSWER) == 2
    assert ANSWER in "".join(shown.splitlines()[-2:])
    assert run("show", RESNET, **{**TERMINAL, "LINES": "100"}).count(ANSWER) == 1
    assert run("show", RESNET).count(ANSWER) == 1  # in a file or a pipe, nothing scrolls off


def test_a_study_longer_than_the_terminal_ends_with_the_headline():
    sweep = str(RECORDS / "h200-resnet50-sweep")
    answer = "resnet50 on NVIDIA H200: compile:dtype=float16"
    shown = run("study", "show", sweep, **TERMINAL)
    assert shown.count(answer) == 2
    assert answer in "".join(shown.splitlines()[-2:])
    assert "verdict" not in shown
    assert "verdict" in run("study", "show", sweep, **{**TERMINAL, "COLUMNS": "130"})
    assert run("study", "show", sweep).count(answer) == 1


def test_the_first_notes_are_shown_with_the_command_for_all(noisy, monkeypatch):
    monkeypatch.chdir(Path(noisy).parent)
    noisy = Path(noisy).name
    shown = " ".join(run("show", noisy).split())
    assert "note 4" in shown
    assert "note 5" not in shown
    assert f"more notes: precisionbench show {noisy} --all" in shown
    assert "note 8" in run("show", noisy, "--all")
    assert "note 8" in str(pb.load(noisy))


def test_notes_on_outliers_come_after_those_that_qualify_the_figures_more():
    notes = run("show", RESNET, "--all").partition("Notes\n")[2]
    assert notes.index("nearly launch-bound") < notes.index("outliers")
    assert notes.index("became slower") < notes.index("outliers")


def test_explain_begins_with_the_answer_and_is_short():
    shown = run("explain", RESNET)
    assert shown.startswith(ANSWER)
    assert shown.count("Slowest layers in") == 1
    assert "Slowest layers in half:memory_format=channels_last (the HTML report has" in shown
    assert shown.count("also suspected, up to") == 2
    assert len(shown.splitlines()) < 60


@pytest.mark.parametrize("width", [60, 80])
def test_lines_of_an_explanation_fit_the_width(width):
    for record in ("cpu-resnet50", "h200-resnet50-batch100"):
        diagnosis = pb.explain(pb.load(RECORDS / f"{record}.json"))
        assert max(map(len, to_text(diagnosis, width).splitlines())) <= width


def test_figures_that_were_reported_without_intervals_are_shown_without():
    shown = " ".join(run("show", str(RECORDS / "xavier-2020-reported.json")).split())
    assert "measured 1.00x eager; the figures were reported by others, without intervals" in shown


def test_layers_of_a_row_that_does_not_count_are_not_shown():
    diagnosis = pb.explain(pb.Comparison(recorded("channels-50")))
    first, *_ = {pair.row: None for pair in diagnosis.layers}
    assert f"Slowest layers in {first}" in to_text(diagnosis)
    pairs = tuple(attrs.evolve(pair, row="slow", time_s=1.0) for pair in diagnosis.layers)
    wrong = tuple(
        attrs.evolve(label, verdict="false", ran="float32") if label.row == first else label
        for label in diagnosis.labels
    )
    changed = attrs.evolve(diagnosis, layers=(*diagnosis.layers, *pairs), labels=wrong)
    assert "Slowest layers in slow" in to_text(changed)
