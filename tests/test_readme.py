"""The README's promises that no other test keeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import stdev

import pytest

import precisionbench
from precisionbench import storage
from precisionbench.doctor.checks import checks_of
from precisionbench.doctor.readings import Readings
from precisionbench.doctor.text import to_text
from precisionbench.results import Block
from precisionbench.speedups import round_shifts, run_spread, within_sd

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="the tests stand alone, without the repository"
)


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_ci_runs_the_readmes_test_command_word_for_word():
    last = (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert last in commands()


def test_the_first_two_commands_set_everything_up():
    main, tests = commands()[:2]
    assert main.startswith("python3 -m venv .venv && ")
    assert main.endswith("precisionbench compare torchvision:resnet50")
    assert tests.endswith("nox")


def test_every_pinned_tool_is_one_that_the_project_asks_for():
    asked = (ROOT / "pyproject.toml").read_text()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert all(f'"{name}' in asked for name in pinned)


def test_the_changelog_has_an_entry_for_this_version():
    assert f"## {precisionbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_local_links_of_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_tables_shown_are_those_of_the_saved_record():
    shown = precisionbench.load(ROOT / "docs/records/h200-resnet50-batch100.json")
    table = str(shown).partition("Rows were")[0].strip()
    assert table in (ROOT / "README.md").read_text()
    assert table in (ROOT / "docs/hardware.md").read_text()


def test_no_document_holds_a_placeholder():
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.findall(r"@[A-Z]+@|TODO|XXX", document.read_text()), document.name


def test_the_figures_of_the_trial_at_batch_1_are_those_of_its_record():
    record = json.loads((ROOT / "docs/records/h100-same-code-batch1.json").read_text())
    page = (ROOT / "docs/between-processes.md").read_text()

    def rows(pack: str, cores: int) -> list[list[Block]]:
        sessions = [one for one in record if (one["pack"], one["cores"]) == (pack, cores)]
        return [
            [Block(round_, place, replica, (s,)) for round_, place, replica, s in blocks]
            for one in sessions
            for blocks in one["blocks"].values()
        ]

    packs = [rows("a0", 0), rows("a0", 2), rows("b0", 0), rows("c0", 0)]
    shown = {
        "blocks within one process": [within_sd(pack) for pack in packs],
        "processes, what rounds share": [
            run_spread({str(i): row for i, row in enumerate(pack)}).sd for pack in packs
        ],
        "what rounds share": [stdev(round_shifts(pack)) for pack in packs],
    }
    for name, values in shown.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {name}"))
        found = [float(number) for number in re.findall(r"\d+\.\d", line)]
        assert found == [round(100 * value, 1) for value in values], name


def test_the_doctors_lines_shown_are_what_the_saved_readings_give():
    document = json.loads((ROOT / "docs/records/h100-doctor.json").read_text())
    readings = storage.structured(document["readings"], Readings)
    shown = (ROOT / "docs/doctor.md").read_text()
    assert to_text(checks_of(readings), readings.noise_floor) in shown
    for block in re.findall(r"```text\n(ok  matmul.*?)```", (ROOT / "README.md").read_text(), re.S):
        assert all(line in shown for line in block.splitlines())
