"""The benchmark of planted causes: what a run keeps when one of its cases fails."""

from __future__ import annotations

import gzip
import importlib
import sys
from pathlib import Path

import pytest

from made_up_results import RECORDED

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("planted_causes")


def run(planted, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["planted_causes.py", *map(str, arguments)])
    planted.main()


def test_a_case_that_fails_ends_neither_the_run_nor_its_recordings(
    planted, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(planted.CASES, "faulty", planted.Case(lambda: 1 / 0))
    text = gzip.decompress((RECORDED / "nchw.json.gz").read_bytes())
    (tmp_path / "nchw.json").write_bytes(text)
    cases = ("--case", "faulty", "nchw", "--device", "cpu", "--budget", "0.1")
    with pytest.raises(SystemExit, match="faulty"):
        run(planted, monkeypatch, tmp_path, *cases, "--record", tmp_path / "recorded")
    assert "| nchw | layout-conversions (half) |" in capsys.readouterr().out
    assert [file.name for file in (tmp_path / "recorded").iterdir()] == ["nchw.json.gz"]


def test_an_unknown_case_is_refused_before_any_is_measured(planted, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(planted, monkeypatch, tmp_path / "results", "--case", "nchw", "nonsense")
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
