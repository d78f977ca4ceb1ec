"""Every example runs, at its smallest size."""

from __future__ import annotations

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import precisionbench as pb

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = ["1", "small_model:build"]

pytestmark = pytest.mark.slow


@pytest.fixture
def example(monkeypatch, tmp_path, capsys):
    """Runs an example in this process, with a second for its rows, and returns what it prints.

    Rows are measured in this process as well, unless a test needs worker processes.
    """

    def run_example(name: str, *arguments: str, launcher: str = "inline") -> str:
        options = {"launcher": launcher, "budget_s": 1.0, "replicas": 1}
        compare = pb.compare
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", [name, *arguments])
            patch.setattr(
                pb, "compare", lambda *args, **more: compare(*args, **{**more, **options})
            )
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "launcher", "expected"),
    [
        ("eager", "process", ["eager", "IEEE float32: "]),
        (
            "half",
            "inline",
            ["half:dtype=bfloat16", "half:memory_format=channels_last", "the speed of float32"],
        ),
        ("apex_amp", "inline", ["apex-amp", "half"]),
        ("aot_inductor", "inline", ["packaged", "model.pt2: ", "aot-inductor:precision="]),
        ("cpu_engines", "inline", ["onnxruntime:precision=int8", "openvino:precision=bf16"]),
        ("quantised_layers", "inline", ["torchao:precision=int8-weight-only", "pt2e"]),
        ("torch2trt_int8", "inline", ["torch2trt:precision=int8,engine_cache=engines"]),
        ("torch_tensorrt_half", "inline", ["torch-tensorrt:precision=fp16,autocast=true"]),
        (
            "compare_all",
            "inline",
            ["eager: available", "compile: available", "eager preparing", "half"],
        ),
        (
            "compile_and_graphs",
            "inline",
            ["compile:dtype=float16,", "freezing=true", "the speed of float32"],
        ),
        ("founding_experiment", "inline", ["apex-amp:opt_level=O3", "eager"]),
    ],
)
def test_an_example_runs_and_shows_its_rows(example, name, launcher, expected):
    printed = example(name, *SMALL, launcher=launcher)
    assert all(text in printed for text in expected), printed
    assert "rel. error" in printed
    if not torch.cuda.is_available() and "apex" in printed:
        assert "apex-amp" in printed.split("Not available: ")[1]


def test_the_example_of_calls_times_functions_regions_and_calls(example):
    printed = example("time_a_call", "0.5")
    assert all(text in printed for text in ("conv2d: ", "channels_last", "copy: ", "preprocess: "))


def test_the_example_of_two_runs_says_what_has_changed(example):
    printed = example("compare_two_runs")
    rows = [line.partition(":")[0] for line in printed.splitlines()]
    assert rows == ["eager", "half", "slower"]


def test_the_example_with_a_model_of_ones_own_saves_its_result(example, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # its workers use all cores, as a reader's
    printed = example("your_own_model", "r.json", launcher="process")
    assert re.search(r"output\['logits'\]: cosine (0\.9|1\.0)", printed)  # of random weights
    assert (tmp_path / "r.json").exists()


def test_the_example_that_asks_why_answers(example):
    printed = example("why")
    assert "Ten questions" in printed
    assert "is labelled" not in printed


def test_the_example_of_a_report_writes_one_that_loads_nothing(example, tmp_path):
    printed = example("html_report", "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "r.html" in printed
    assert "default-src 'none'" in text
    assert 'id="gap"' in text


def test_the_example_of_a_gap_explains_the_saved_record(tmp_path):
    """As a reader runs it, in a process of its own."""
    printed = run(str(EXAMPLES / "explain_gap.py"), cwd=tmp_path)
    assert printed.startswith("Mostly assumed")
    assert re.search(r"3x  measured     precision: float32 to float16\n", printed)
    assert printed.endswith("  29.9x  total\n")


def test_the_founding_case_is_a_ledger_of_6_28_and_says_first_that_most_is_assumed(
    example, tmp_path
):
    saved = tmp_path / "xavier.json"
    printed = example("founding_case", str(saved))
    assert "a gap of 6.28x" in printed
    assert "Mostly assumed" in printed
    assert re.search(r"1x  1 +confirmed +the baseline is not", printed)
    assert "reported, not measured here" in printed
    kept = EXAMPLES.parent / "docs/records/xavier-2020-reported.json"
    assert saved.read_text() == kept.read_text()


def test_the_rows_of_both_cases_multiply_to_their_gaps():
    for name in ("founding_case", "h200_case"):
        found = runpy.run_path(str(EXAMPLES / f"{name}.py"))["case"]()
        gap = found[1] if isinstance(found, tuple) else found
        product = math.prod(row.factor.value for row in gap.factors)
        assert product == pytest.approx(gap.gap, rel=1e-9)


def test_the_case_of_an_h200_is_what_its_record_says(example):
    printed = example("h200_case")
    assert "a gap of 8.88x" in printed
    assert "is unexplained" in printed


@pytest.mark.slow  # its search takes its budget
def test_a_model_is_tuned_and_called(monkeypatch, tmp_path, example):
    monkeypatch.setenv("PRECISIONBENCH_CACHE_DIR", str(tmp_path))
    printed = example("tune", "--budget", "20")
    assert ": (8, 10)" in printed
    assert [*(tmp_path / "tune").glob("*.jsonl")]


def test_the_plugin_package_is_installed_and_run(tmp_path):
    site = tmp_path / "site"
    run(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--target", str(site), str(EXAMPLES / "precisionbench-float64")),
        cwd=tmp_path,
    )
    listed = run("-m", "precisionbench", "backends", cwd=tmp_path, PYTHONPATH=str(site))
    assert "float64\n  Eager PyTorch in float64." in listed
    assert "threads=a whole number" in listed
    (tmp_path / "mine.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(8, 8), torch.rand(4, 8)\n"
    )
    shown = run(
        *("-m", "precisionbench", "compare", "mine:make", "--device", "cpu"),
        *("--budget", "1", "--replicas", "1"),
        *("-b", "float64", "-b", "float64:threads=1"),
        cwd=tmp_path,
        PYTHONPATH=str(site),
    )
    assert "float64:threads=1" in shown
    assert "Not available" not in shown
