"""Comparisons that the command line saves by itself, and `last`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.cli import main
from precisionbench.cli.saved import FOLDER_VARIABLE, MOST_KEPT, folder, remember
from precisionbench.results import ComparisonData

MODEL = """
import torch
def tiny():
    return torch.nn.Linear(8, 8), torch.rand(2, 8)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of saved comparisons, which is not there yet."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "comparisons"


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def of_model(name: str) -> pb.Comparison:
    data: ComparisonData = comparison_data()
    return pb.Comparison(attrs.evolve(data, workload=attrs.evolve(data.workload, model=name)))


def test_a_comparison_is_saved_unasked_and_the_next_step_is_said(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models.py").write_text(MODEL)
    measured = ("--device", "cpu", "--launcher", "inline", "--budget", "0.1", "--no-evidence")
    done = run("compare", "saved_models:tiny", "-b", "eager", *measured)
    assert done.exit_code == 0, done.output
    (file,) = cache.iterdir()
    assert f"Saved to {file}\nNext: precisionbench show last --html report.html" in done.stderr
    assert "Saved to" not in done.stdout
    shown = run("show", "last")
    assert shown.stdout == done.stdout
    other = run("compare", "saved_models:tiny", "-b", "eager", "-o", "my r.json", *measured)
    assert "Saved to my r.json\nNext: precisionbench show 'my r.json' --html" in other.stderr


def test_all_commands_that_read_results_take_last(cache):
    for name in ("First", "Second"):
        remember(of_model(name))
    assert "Second, batch 4" in run("show", "last").stdout
    assert "First, batch 4" in run("show", "last~1").stdout
    assert "Ten questions" in run("explain", "last").stdout
    done = run("diff", "last~1", "last", "--force")
    assert done.exit_code == 0, done.output
    assert "95 % CI" in done.stdout


def test_without_one_it_says_what_to_do(cache):
    done = run("show", "last")
    assert done.exit_code == 2
    assert "there is no last: 0 comparisons are saved in" in done.stderr


def test_a_file_of_that_name_is_found_by_its_path(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_model("Mine").save("last")
    remember(of_model("Other"))
    assert "Mine, batch 4" in run("show", "./last").stdout


def test_nobody_else_can_read_them(cache):
    cache.mkdir(parents=True, mode=0o755)
    remember(of_model("Net"))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_the_newest_are_kept_and_files_of_others_stay(cache):
    cache.mkdir(parents=True)
    (cache / "mine.json").write_text("{}")
    for number in range(MOST_KEPT + 3):
        saved = remember(of_model(f"Net{number}"))
        assert saved is not None
        os.utime(saved, ns=(number, number))
    left = {file.name for file in cache.iterdir()}
    assert len(left) == MOST_KEPT + 1
    assert "mine.json" in left
    assert not any("-Net0." in name for name in left)
    assert any(f"-Net{MOST_KEPT + 2}." in name for name in left)


def test_comparisons_of_the_same_second_and_model_are_all_kept(cache):
    files = {remember(of_model("Net")) for _ in range(3)}
    assert len(files) == 3


def test_a_name_from_others_is_no_path(cache):
    saved = remember(of_model("../../x/\x1b[2J:y z"))
    assert saved is not None
    assert saved.parent == cache
    assert saved.name.endswith("-x-2J-y-z.json")


def test_a_folder_that_cannot_be_written_is_a_note(cache, capsys):
    cache.parent.write_text("a file where the folder should be")
    assert remember(of_model("Net")) is None
    assert "Note: not saved for `last` (" in capsys.readouterr().err


def test_an_empty_variable_saves_nothing(monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert folder() is None
    assert remember(of_model("Net")) is None


def test_without_the_variable_it_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = folder()
    assert found is not None
    assert found.parts[-2:] == ("precisionbench", "comparisons")


def test_the_python_function_saves_nothing(cache):
    model = (lambda: __import__("torch").nn.Linear(2, 2)), __import__("torch").rand(1, 2)
    pb.compare(*model, backends=["eager"], launcher="inline", budget_s=0.05, evidence=False)
    assert not cache.exists()
