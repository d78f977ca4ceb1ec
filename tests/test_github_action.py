"""The GitHub Action: its shell steps run as GitHub runs them, on made-up results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from made_up_studies import cell_result, data_of, sweep_results
from precisionbench.results import json_format
from precisionbench.results.study import CellResult

FILE = Path(__file__).parent.parent / ".github/actions/precisionbench/action.yml"
pytestmark = [
    pytest.mark.uncounted,
    pytest.mark.skipif(not FILE.exists(), reason="the tests stand alone, without the repository"),
]
# Stands for the command; `study run` copies results that were measured before.
COMMAND = """#!/bin/bash
if [ "$1 $2" = "study run" ]; then cp -r "$MEASURED" "$5"; exit; fi
exec {python} -m precisionbench "$@"
"""


@pytest.fixture(scope="module")
def action() -> dict:
    return pytest.importorskip("yaml").safe_load(FILE.read_text(encoding="utf-8"))


class Runner:
    """Runs the shell steps of the action, with the inputs' defaults."""

    def __init__(self, action: dict, folder: Path, measured: list[CellResult]) -> None:
        self.action, self.folder = action, folder
        self.summary, self.output = folder / "summary.md", folder / "output"
        write(folder / "measured", measured)
        (folder / "bin").mkdir()
        command = folder / "bin/precisionbench"
        command.write_text(COMMAND.format(python=sys.executable))
        command.chmod(0o755)
        (folder / "temp/precisionbench/study").mkdir(parents=True)

    @property
    def last(self) -> Path:
        return self.folder / "temp/precisionbench/study/last"

    def run(self, **given: str) -> int:
        """Run the steps until one fails; its exit code."""
        defaults = {name: one.get("default", "") for name, one in self.action["inputs"].items()}
        inputs = {**defaults, "study": "study.toml", **given}
        for step in self.action["runs"]["steps"]:
            if "run" in step:
                code = self._step(step, inputs)
                if code:
                    return code
        return 0

    def _step(self, step: dict, inputs: dict[str, str]) -> int:
        own = {name: self._value(text, inputs) for name, text in step["env"].items()}
        env = {
            **os.environ,
            **own,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            "MEASURED": str(self.folder / "measured"),
        }
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        return subprocess.run(shell, env=env, cwd=self.folder, capture_output=True).returncode

    def _value(self, text: str, inputs: dict[str, str]) -> str:
        """A value with the expressions that the action uses."""
        if "format(" in text:
            return inputs["against"] or str(self.last)
        found = text.replace("${{ runner.temp }}", str(self.folder / "temp"))
        found = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], found)
        assert "${{" not in found
        return found


def write(folder: Path, results: list[CellResult]) -> None:
    folder.mkdir()
    for number, one in enumerate(results):
        (folder / f"cell{number}.json").write_text(json_format.to_json(data_of(one)))


def slower() -> list[CellResult]:
    results = sweep_results((1, 8), day=2)
    times = {"eager": 1.2e-3, "half": 1.2e-3}
    return [*results[:1], cell_result(times, results[1].cell, day=2)]


def test_no_step_puts_an_input_into_its_script(action):
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert step.get("shell", "bash") == "bash"


def test_every_input_has_a_description_and_is_used(action):
    text = FILE.read_text(encoding="utf-8")
    for name, one in action["inputs"].items():
        assert one["description"]
        assert f"inputs.{name}" in text


def test_the_first_run_shows_the_study_and_keeps_it_for_the_next_one(action, tmp_path):
    runner = Runner(action, tmp_path, sweep_results((1, 8)))
    assert runner.run() == 0
    assert "half is faster than eager from batch 8 on" in runner.summary.read_text()
    assert len(list(runner.last.glob("*.json"))) == 2
    assert runner.output.read_text() == f"folder={runner.last.parent}/now\n"


def test_a_run_that_is_slower_fails_and_does_not_replace_the_last_one(action, tmp_path):
    runner = Runner(action, tmp_path, slower())
    write(runner.last, sweep_results((1, 8)))
    before = {file.name: file.read_text() for file in runner.last.iterdir()}
    assert runner.run() == 1
    summary = runner.summary.read_text()
    assert summary.startswith("**Failed: ")
    assert "at most 5 % of checks fail" in summary
    assert {file.name: file.read_text() for file in runner.last.iterdir()} == before


def test_a_run_that_is_not_slower_passes_and_replaces_the_last_one(action, tmp_path):
    runner = Runner(action, tmp_path, sweep_results((1, 8), day=2))
    write(runner.last, sweep_results((1, 8)))
    assert runner.run(**{"fail-under": "half>=0.5"}) == 0
    assert runner.summary.read_text().startswith("**Passed: ")
    assert "2026-11-02" in (runner.last / "cell0.json").read_text()


def test_renewing_compares_with_nothing(action, tmp_path):
    runner = Runner(action, tmp_path, slower())
    write(runner.last, sweep_results((1, 8)))
    assert runner.run(renew="true") == 0
    assert "2026-11-02" in (runner.last / "cell0.json").read_text()
