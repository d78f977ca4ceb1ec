"""Every example explains itself, and is run by a test of test_examples.py."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import pytest

import precisionbench as pb

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", [*EXAMPLES.glob("*.py")], ids=lambda path: path.stem)
def test_an_example_says_what_it_does_and_measures_nothing_when_it_is_asked_for_help(
    path, monkeypatch, capsys
):
    def compare(*_: object, **__: object) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr(pb, "compare", compare)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {path.name} [-h]")
    assert ast.get_docstring(ast.parse(path.read_text())).partition("\n")[0] in printed


def test_every_example_is_run_by_a_test():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "aot_inductor",
        "apex_amp",
        "compare_all",
        "compare_two_runs",
        "compile_and_graphs",
        "cpu_engines",
        "eager",
        "explain_gap",
        "founding_case",
        "founding_experiment",
        "h200_case",
        "half",
        "html_report",
        "quantised_layers",
        "time_a_call",
        "torch2trt_int8",
        "torch_tensorrt_half",
        "tune",
        "why",
        "your_own_model",
    }
