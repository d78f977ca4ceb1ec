"""A tuning result as people read it: text, Markdown, data frames."""

from __future__ import annotations

from functools import cache

import attrs
import pytest
from hypothesis import given, settings

from hostile_text import assert_markdown, assert_visible, replaced, texts
from made_up_results import measurement
from made_up_tuning import final, tuning_data, with_metric
from precisionbench.report.tuning import space_text, summary, to_markdown, to_text
from precisionbench.report.tuning_texts import COLUMNS, course, headline, left_out, trial_cells
from precisionbench.results import Passes
from precisionbench.results.tuning import BEST, Trial, TuningData

CHANNELS_LAST = "half:memory_format=channels_last"


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_first_lines_are_the_best_configuration_its_accuracy_and_why():
    first, *_ = to_text(tuning_data(), 120).split("\n\n")
    assert flat(first) == (
        f"{CHANNELS_LAST} is 4.00x (3.99 to 4.01) as fast as eager; relative L2 error 9.1e-04 "
        f"(8.2e-04 to 1.0e-03), at most 1.0e-02. {CHANNELS_LAST} is 1.12x (1.11 to 1.13) as fast "
        "as the runner-up half."
    )


def test_a_metric_is_named_and_its_drop_has_an_interval():
    assert headline(with_metric()).endswith(
        "; drop of top1 0.0036 (0.0016 to 0.0056), at most 0.005."
    )
    assert "relative" not in to_text(with_metric())


def test_where_the_reference_is_kept_it_is_called_so():
    why = "eager is kept, because no other configuration is accurate enough"
    text = flat(to_text(tuning_data(best="eager", choice=why)))
    assert text.startswith("The result is eager, the reference; relative L2 error 5.0e-07 (")
    assert f"{why}." in text


def lines_of(text: str, *starts: str) -> list[list[str]]:
    lines = text.splitlines()
    cells = [line for line in lines if "ms " in line or line.startswith("configuration ")]
    return [next(line for line in cells if line.startswith(start)).split() for start in starts]


def test_the_table_has_the_figures_of_the_final_rounds():
    passes = {"half": Passes(peak_allocated_bytes=450_000_000, energy_j=0.5)}
    text = to_text(tuning_data(final=final(passes=passes)), 130)
    heading, best, half, eager = lines_of(text, "config", f"{CHANNELS_LAST} ", "half ", "eager ")
    assert " ".join(heading) == (
        "configuration latency ± items/s speed-up 95 % CI rel. error peak memory energy"
    )
    assert best[1:7] == ["2.500", "ms", "0.3%", "1,600", "4.00x", "3.989"]
    assert best[-5:] == ["9.1e-04", "470", "MB", "-", "best"]
    assert half[-6:] == ["9.0e-04", "450", "MB", "125", "mJ/item", "front"]
    assert eager[5:8] == ["1", "(ref.)", "-"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_longer_than_the_terminal(width):
    for data in (tuning_data(), with_metric()):
        assert max(map(len, to_text(data, width).splitlines())) <= width


def test_on_80_columns_there_is_room_for_what_decides():
    heading, *_ = lines_of(to_text(tuning_data()), "configuration")
    assert heading == ["configuration", "latency", "speed-up", "rel.", "error"]


def test_a_verdict_that_is_neither_faster_nor_slower_stands_below_the_name():
    text = to_text(tuning_data(final=final(rounds=2)))
    assert "  inconclusive (too few rounds)" in text.splitlines()


def test_a_note_on_few_rounds_asks_for_what_tune_has():
    text = flat(to_text(tuning_data(final=final(rounds=2)), 120))
    assert "inconclusive: too few rounds; use a larger budget, or an idle machine" in text
    assert "use a time budget of about" not in text


def test_what_lost_is_listed_by_outcome_with_its_reason():
    text = to_text(tuning_data(), 120)
    for heading, line in (
        ("Slower", "  autocast: 2.10x (2.00 to 2.20) in screening; its upper end is below the"),
        ("Inaccurate", "  half:dtype=bfloat16: relative L2 error 2.4e-02 (2.2e-02 to 2.6e-02), at"),
        ("Failed", "  compile, compile:freezing=true: PreparationError: no compiler was found"),
        ("Not finished", "  openvino: the budget ended while it was built"),
        ("Left out", "  torch2trt, apex-amp: requires an NVIDIA GPU; run on a machine that has"),
        ("Notes", "  the accuracy was measured on 1 batch"),
    ):
        below = text.splitlines()[text.splitlines().index(heading) + 1]
        assert below.startswith(line)
    assert "  torchao:scheme=int8: an output is infinite or NaN" in text.splitlines()


def test_a_section_without_anything_is_left_out():
    text = to_text(tuning_data(trials=tuning_data().trials[:3], left_out=(), notes=()))
    for heading in ("Slower", "Inaccurate", "Failed", "Not finished", "Left out"):
        assert heading not in text


def test_the_course_says_how_much_was_tried_in_which_time_and_what_ended_it():
    assert course(tuning_data()) == (
        "8 of 9 configurations tried (1 of them in an earlier run) in 118 s of 120 s; the budget "
        "ended the search, and a larger one tries the rest."
    )
    one = tuning_data(trials=tuning_data().trials[2:3], elapsed_s=3.21, ended_by="finished")
    assert course(one) == "1 configuration tried in 3.2 s of 120 s."
    assert course(attrs.evolve(one, ended_by="interrupted")).endswith("the search was interrupted.")


def test_a_best_configuration_that_missed_the_final_rounds_has_its_screening():
    rows = final({"eager": 1e-2})
    assert headline(tuning_data(final=rows)).startswith(f"{CHANNELS_LAST} is 4.00x (3.97 to 4.03)")


def test_a_reason_is_given_once_for_all_that_it_concerns():
    assert left_out(tuning_data())[0][0] == ["torch2trt", "apex-amp"]


def test_the_summary_is_a_few_lines():
    found = list(summary(tuning_data()))
    assert found[0] == "Net, batch 4 on NVIDIA Test"
    assert found[1] == headline(tuning_data())
    assert len(found) == 4


def test_markdown_has_the_same_parts():
    text = to_markdown(tuning_data())
    assert text.startswith(f"**{CHANNELS_LAST.replace('_', chr(92) + '_')} is 4.00x")
    assert f"| `{CHANNELS_LAST}` | 2.500 ms | 0.3% | 1,600 | 4.00x |" in text
    assert "- `compile`, `compile:freezing=true`: PreparationError: no compiler was found" in text
    assert "Left out:\n\n- `torch2trt`, `apex-amp`: requires an NVIDIA GPU" in text


def test_the_space_is_listed_before_anything_is_tried():
    further = {"half": ["fold_batch_norm=true", "cuda_graph=true"], "compile": []}
    assert space_text(["eager", CHANNELS_LAST], further, tuning_data().left_out) == (
        f"Tried\n  eager\n  {CHANNELS_LAST}\n\n"
        "Tried further, one at a time, on the fastest accurate configuration of\n"
        "  half: fold_batch_norm=true, cuda_graph=true\n\n"
        "Left out\n"
        "  torch2trt, apex-amp: requires an NVIDIA GPU; run on a machine that has one\n"
        "  fold_batch_norm=true: the model has no batch norm"
    )


# --- data frames --------------------------------------------------------------------------------


def test_each_trial_is_a_row_of_cells():
    cells = trial_cells(tuning_data())
    assert [one["spec"] for one in cells] == [trial.spec for trial in tuning_data().trials]
    assert all(set(one) <= set(COLUMNS) for one in cells)
    best, autocast, failed = cells[2], cells[3], cells[6]
    assert (best["outcome"], best["is_on_front"], best["peak_memory_bytes"]) == (
        BEST,
        True,
        470_000_000,
    )
    assert best["speedup_low"] < best["speedup"] < best["speedup_high"]
    assert (autocast["speedup"], autocast["loss"], "latency_s" in autocast) == (2.1, 8e-4, False)
    assert failed["reason"] == "PreparationError: no compiler was found"
    assert trial_cells(with_metric())[1]["metric"] == pytest.approx(0.76 - 0.0036)


# --- hostile text -------------------------------------------------------------------------------


@cache
def plain() -> TuningData:
    """A result whose texts can be replaced."""
    data = tuning_data()
    rows = tuple(attrs.evolve(row, measurement=measurement(0.01)) for row in data.final.results)
    return attrs.evolve(data, final=attrs.evolve(data.final, results=rows))


def hostile(text: str) -> TuningData:
    """The result with this text in all places that others can fill."""
    data = plain()
    trials = tuple(
        Trial(f"{trial.spec}{text}" if trial.spec == "compile" else trial.spec, *_rest(trial, text))
        for trial in data.trials
    )
    bound = attrs.evolve(data.bound, measure=text)
    out = replaced(data.left_out, lambda old: f"{old}{text}")
    workload = attrs.evolve(data.final.workload, model=text)
    return attrs.evolve(
        data,
        trials=trials,
        bound=bound,
        left_out=out,
        choice=f"x{text}",
        notes=(f"x{text}",),
        final=attrs.evolve(data.final, workload=workload),
    )


def _rest(trial: Trial, text: str) -> tuple:
    return trial.outcome, f"{trial.reason}{text}", trial.accuracy, trial.speedup, text


@settings(max_examples=40)
@given(texts)
def test_everything_in_the_text_is_visible(text):
    assert_visible(to_text(hostile(text)))


@given(texts)
def test_no_text_becomes_markup_in_markdown(text):
    assert_markdown(to_markdown(hostile(text or "word")), to_markdown(hostile("word")))
