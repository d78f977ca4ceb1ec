"""`precisionbench tune`, and `show` of its result; the search itself is simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import precisionbench as pb
from made_up_tuning import tuning_data
from precisionbench.backends.rungs import Stage
from precisionbench.cli.main import main
from precisionbench.report.tuning import to_markdown, to_text
from precisionbench.results import tuning_format
from precisionbench.results.tuning import LeftOut
from precisionbench.workflows.tuning.space import Family, Space

MODEL = """
import torch
def tiny(batch_size=2):
    return torch.nn.Linear(8, 8), torch.rand(batch_size, 8)
def mean(outputs, batch):
    return float(outputs.mean())
def batches():
    return [torch.zeros(2, 8)]
def broken():
    raise OSError("no such disk")
"""
METRIC = ("--metric", "tuning_models:mean", "--data", "tuning_models:batches", "--drop", "0.1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of models; nothing is kept of a run."""
    (tmp_path / "tuning_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRECISIONBENCH_CACHE_DIR", "")
    return tmp_path


@pytest.fixture
def asked(here, monkeypatch) -> list[dict[str, Any]]:
    """The arguments of each search, which finds a result at once."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", searching(calls))
    return calls


def searching(calls: list[dict[str, Any]], **changes: object) -> Callable[..., pb.Tuned]:
    def tune(model: str, *, on_progress: object, **options: Any) -> pb.Tuned:
        calls.append({"model": model, **options})
        return pb.Tuned(tuning_data(**changes))

    return tune


def tune(*args: str) -> Result:
    return CliRunner().invoke(main, ["tune", "tuning_models:tiny", "--quiet", *args])


def show(*args: str) -> Result:
    return CliRunner().invoke(main, ["show", *args])


@pytest.fixture
def saved(here) -> str:
    (here / "tuned.json").write_text(tuning_format.to_json(tuning_data()))
    return "tuned.json"


# --- what is searched for -----------------------------------------------------------------------


def test_without_options_the_defaults_of_the_library_hold(asked):
    assert tune().exit_code == 0
    given = {name: value for name, value in asked[0].items() if value is not None}
    assert given == {"model": "tuning_models:tiny", "reference": "eager", "journal": "auto"}


def test_each_option_is_an_argument(asked):
    done = tune(
        *("--max-error", "1e-3", "--include", "half", "--include", "compile:freezing=true"),
        *("--exclude", "half:dtype=bfloat16", "--batch-sizes", "1,8, 32", "--budget", "30"),
        *("--reference", "half", "--device", "cpu", "--batch-size", "4", "--seed", "3"),
        *("--journal", "my.jsonl"),
    )
    assert done.exit_code == 0, done.output
    assert asked[0] == {
        "model": "tuning_models:tiny",
        "max_error": 1e-3,
        "include": ("half", "compile:freezing=true"),
        "exclude": ("half:dtype=bfloat16",),
        "batch_sizes": (1, 8, 32),
        "budget_s": 30,
        "reference": "half",
        "device": "cpu",
        "batch_size": 4,
        "seed": 3,
        "journal": "my.jsonl",
    }


def test_nothing_is_kept_without_a_journal(asked):
    tune("--no-journal")
    assert asked[0]["journal"] is None


def test_a_metric_and_its_data_are_functions_of_a_module(asked):
    assert tune(*METRIC, "--lower-is-better").exit_code == 0
    found = asked[0]
    assert (found["drop"], found["higher_is_better"], found["max_error"]) == (0.1, False, None)
    assert found["metric"](found["data"][0], None) == 0.0
    assert found["metric"].__name__ == METRIC[1].partition(":")[2]


def test_random_inputs_have_the_shape_and_the_batch(asked):
    tune("--input-shape", "3,8,8", "--batch-size", "2", "--device", "cpu")
    assert asked[0]["inputs"].shapes == ((3, 8, 8),)
    assert asked[0]["inputs"].batch_size == 2


USAGE = (
    (("--max-error", "1e-2", *METRIC), "--max-error and --metric exclude each other"),
    (METRIC[:2], "--metric, --data and --drop belong together; add --data and --drop"),
    (("--lower-is-better",), "--lower-is-better is of a --metric; add it"),
    (("--journal", "a", "--no-journal"), "--journal and --no-journal exclude each other"),
    (("--batch-sizes", "1,x"), "'x' is not a whole number of 1 or more; write sizes as 8"),
    (("--batch-sizes", "0"), "'0' is not a whole number of 1 or more; write sizes as 8"),
    (("--batch-size", "-1"), "'-1' is not a whole number of 1 or more; write sizes as 8"),
    (("--max-error", "-1"), "'-1' is not a number of 0 or more; write it as 0.01"),
    (("--drop", "-1"), "'-1' is not a number of 0 or more; write it as 0.005"),
    (("--max-error", "inf"), "'inf' is infinite; it must be a number of 0 or more; write it as"),
    (("--show-space", "--reference", "nosuch"), "there is no backend 'nosuch'"),
    (("--show-space", "--reference", "half:dtype=x"), "half: dtype cannot be 'x'"),
    (("--metric", "mean", *METRIC[2:]), "the metric 'mean' names no function; write 'package.mod"),
    (("--metric", "tuning_models:maen", *METRIC[2:]), "did you mean 'mean'?"),
    (
        (*METRIC[:3], "tuning_models:broken", *METRIC[4:]),
        "the data 'tuning_models:broken' cannot be made (OSError: no such disk)",
    ),
    (("-o", "no/r.json"), "there is no folder 'no'"),
    (("--overwrite",), "--overwrite requires --output or --html"),
)


@pytest.mark.parametrize(("options", "message"), USAGE)
def test_bad_usage_is_one_sentence_before_anything_is_searched(asked, options, message):
    done = tune(*options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert asked == []


# --- what is printed and written ----------------------------------------------------------------


def test_the_result_is_printed_saved_and_shown_again(asked, here):
    done = tune("-o", "tuned.json", "--html", "tuned.html")
    assert done.stdout == to_text(tuning_data()) + "\n"
    assert "Saved to tuned.json" in done.stderr
    assert tuning_format.load("tuned.json") == tuning_data()
    assert "Speed against error" in (here / "tuned.html").read_text()
    assert show("tuned.json").stdout == done.stdout


def test_without_a_report_the_next_step_makes_one(asked):
    done = tune("-o", "tuned.json")
    assert "Next: precisionbench show tuned.json --html report.html" in done.stderr


def test_an_existing_file_is_kept_unless_it_may_be_replaced(asked, saved):
    assert "exists" in tune("-o", saved).stderr
    assert asked == []
    assert tune("-o", saved, "--overwrite").exit_code == 0


def test_json_is_the_document_that_output_saves(asked):
    assert tune("--json").stdout == tuning_format.to_json(tuning_data())


def test_a_kept_reference_is_no_failure(here, monkeypatch):
    found = searching([], best="eager", choice="eager is kept, because nothing is faster")
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", found)
    assert tune().exit_code == 0


def test_an_interrupted_search_has_its_result_and_the_exit_code_130(here, monkeypatch):
    found = searching([], ended_by="interrupted")
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", found)
    done = tune("-o", "tuned.json")
    assert done.exit_code == 130
    assert "the search was interrupted" in " ".join(done.stdout.split())
    assert tuning_format.load("tuned.json").ended_by == "interrupted"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("what was tried is kept in 'kept.jsonl'", "what was tried is kept in 'kept.jsonl'"),
        (None, "nothing is kept"),
    ],
)
def test_a_search_that_is_interrupted_without_a_result_says_what_is_kept(
    here, monkeypatch, told, says
):
    def interrupted(*_: object, **__: object) -> None:
        exc = KeyboardInterrupt()
        if told:
            vars(exc)["kept"] = told  # by the search, which knows its journal
        raise exc

    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", interrupted)
    done = tune()
    assert done.exit_code == 130
    assert done.stderr.startswith(f"Interrupted: {says}")


def test_a_second_ctrl_c_says_what_is_kept_too(here, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        exc = KeyboardInterrupt()
        vars(exc)["kept"] = "what was tried is kept in 'kept.jsonl'"
        try:
            raise exc
        finally:
            raise KeyboardInterrupt  # while the first one ends worker processes

    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", interrupted)
    done = tune()
    assert done.exit_code == 130
    assert done.stderr == "Interrupted: what was tried is kept in 'kept.jsonl'\n"


# --- the space ----------------------------------------------------------------------------------


def test_the_space_has_the_reference_once_however_it_is_written(asked, monkeypatch):
    found = Space((Family("half", Stage.PRECISION, ("half",)),))
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.planned", lambda *_, **__: found)
    done = tune("--show-space", "--json", "--reference", "half:dtype=float16")
    assert json.loads(done.stdout)["tried"] == ["half"]


@pytest.mark.parametrize("option", ["-o", "--html"])
def test_the_space_is_written_to_no_file(asked, option):
    done = tune("--show-space", option, "shown.json")
    assert done.exit_code == 2
    assert "leave out -o and --html" in done.stderr
    assert not Path("shown.json").exists()


def test_the_space_is_not_printed_for_a_budget_that_is_too_small(asked):
    done = tune("--show-space", "--budget", "1", "--device", "cpu")
    assert done.exit_code == 2
    assert "give a number of seconds from 5" in done.stderr


def test_the_space_is_printed_and_nothing_is_searched(asked, monkeypatch):
    family = Family("half", Stage.PRECISION, ("half",), ({"cuda_graph": True},))
    found = Space((family,), (LeftOut("compile", "it is excluded"),))
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.planned", lambda *_, **__: found)
    assert tune("--show-space").stdout.splitlines() == [
        *("Tried", "  eager", "  half", ""),
        "Tried further, one at a time, on the fastest accurate configuration of",
        *("  half: cuda_graph=true", ""),
        *("Left out", "  compile: it is excluded"),
    ]
    assert asked == []


def test_other_batch_sizes_are_part_of_the_space(asked, monkeypatch):
    family = Family("half", Stage.PRECISION, ("half",))
    found = Space((family,), batch_sizes=(1, 64))
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.planned", lambda *_, **__: found)
    assert tune("--show-space").stdout.splitlines()[4:] == [
        "Tried last, on each of the two fastest configurations",
        *("  batch_size=1", "  batch_size=64"),
    ]
    assert json.loads(tune("--show-space", "--json").stdout)["batch_sizes"] == [1, 64]


def test_the_space_of_this_machine_is_also_json(asked, listed_once):
    done = tune("--show-space", "--json", "--device", "cpu", "--include", "half")
    document = json.loads(done.stdout)
    assert (document["format"], document["version"]) == ("precisionbench.tuning-space", 1)
    assert document["tried"] == ["eager", "half", "half:dtype=bfloat16"]
    assert {"what", "reason"} == set(document["left_out"][0])


# --- show ---------------------------------------------------------------------------------------


def test_show_prints_a_saved_result_in_each_form(saved, here):
    assert show(saved).stdout == to_text(tuning_data()) + "\n"
    assert show(saved, "--markdown").stdout == to_markdown(tuning_data()) + "\n"
    assert show(saved, "--json").stdout == tuning_format.to_json(tuning_data())
    assert show(saved, "--html", "page.html").stdout == ""
    assert "Speed against error" in (here / "page.html").read_text()


@pytest.mark.parametrize(
    "options", [("--csv",), ("--rules",), ("--fail-under", "half>=1.5"), ("--wide",)]
)
def test_options_of_comparisons_are_refused(saved, options):
    done = show(saved, *options)
    assert done.exit_code == 2
    assert "this is a tuning result; it is shown as text, or with --json" in done.stderr


@pytest.mark.parametrize("command", [("explain",), ("diff", "tuned.json")])
def test_commands_for_comparisons_name_what_reads_the_file(saved, command):
    done = CliRunner().invoke(main, [*command, saved])
    assert done.exit_code == 2
    assert "this is a tuning result: pb.load_tuned reads it" in done.stderr


def test_a_damaged_result_is_one_sentence(here):
    data = attrs.evolve(tuning_data(), best="nobody")
    (here / "bad.json").write_text(tuning_format.to_json(data))
    done = show("bad.json")
    assert done.exit_code == 2
    assert "best is 'nobody', which is none of the trials" in done.stderr


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--include", "--exclude", "--reference"])
def test_configurations_are_completed(option):
    shell = ShellComplete(main, {}, "precisionbench", "_PRECISIONBENCH_COMPLETE")
    found = shell.get_completions(["tune", "tuning_models:tiny", option], "half:memory_format=ch")
    assert [one.value for one in found] == ["half:memory_format=channels_last"]


def test_files_are_completed_by_the_shell():
    shell = ShellComplete(main, {}, "precisionbench", "_PRECISIONBENCH_COMPLETE")
    found = shell.get_completions(["tune", "tuning_models:tiny", "--journal"], "my")
    assert [one.type for one in found] == ["file"]
