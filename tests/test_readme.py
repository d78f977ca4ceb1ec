"""The README's promises that no other test keeps."""

from __future__ import annotations

import importlib
import json
import math
import re
from pathlib import Path
from statistics import median, stdev

import pytest

import precisionbench
from made_up_results import recorded
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.analysis.variation import round_shifts, run_spread, within_sd
from precisionbench.doctor.checks import checks_of
from precisionbench.doctor.readings import Readings
from precisionbench.doctor.text import to_text
from precisionbench.results import Block, json_format
from precisionbench.statistics import Interval

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# Folders whose README.md lists their pages.
LISTED = ("causes", "tutorials", "how-to", "case-studies")
pytestmark = [
    pytest.mark.uncounted,
    pytest.mark.skipif(
        not (ROOT / "README.md").exists(), reason="the tests stand alone, without the repository"
    ),
]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def documents() -> list[Path]:
    return [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/tutorials").glob("*.md"),
    ]


def test_ci_runs_the_readmes_test_command_word_for_word():
    last = (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert last in commands()


def test_the_output_of_the_first_command_is_a_recorded_one_with_an_answer_and_a_next_step():
    """Its record was saved by that command, on two CPU cores."""
    shown = str(precisionbench.load(ROOT / "docs/records/cpu-resnet50.json"))
    assert f"```text\n{shown.strip()}\n\nSaved to " in (ROOT / "README.md").read_text()
    assert shown.startswith("half:dtype=bfloat16,memory_format=channels_last is fastest: ")
    assert "inconclusive" not in shown


def test_the_readme_stays_short():
    prose = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(prose.split()) < 550


def test_ten_questions_are_the_ones_that_a_diagnosis_answers():
    headings = re.findall(
        r"^## (.+\?)$", (ROOT / "docs/ten-questions.md").read_text(), re.MULTILINE
    )
    diagnosis = precisionbench.explain(ROOT / "docs/records/h100-overflow.json")
    assert headings == [answer.question for answer in diagnosis.answers]


def test_the_first_two_commands_set_everything_up():
    main, tests = commands()[:2]
    assert main.startswith("python3 -m venv .venv && ")
    assert main.endswith("precisionbench compare torchvision:resnet50")
    assert tests.endswith("nox")


def pinned(text: str) -> list[str]:
    return [line.partition("==")[0] for line in text.splitlines() if not line.startswith("#")]


def test_every_pinned_tool_is_one_that_the_project_asks_for():
    asked = (ROOT / "pyproject.toml").read_text()
    tools, _, needed = (ROOT / "constraints.txt").read_text().partition("# What these engines need")
    assert all(f'"{name}' in asked for name in pinned(tools))
    assert needed
    assert not any(f'"{name}' in asked for name in pinned(needed))


def test_the_changelog_has_an_entry_for_this_version():
    assert f"## {precisionbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_local_links_of_the_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_paths_of_code_in_the_documents_exist():
    """A path is from the root (`tests/conftest.py`) or from the package (`measure/rows.py`)."""
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:[\w.-]+/)+[\w*.-]*\.(?:py|toml))`", document.read_text()):
            bases = (ROOT, ROOT / "src/precisionbench", document.parent)
            assert any(any(base.glob(path)) for base in bases), f"{document.name}: {path}"


@pytest.mark.parametrize("folder", LISTED)
def test_a_folder_of_pages_lists_all_of_them(folder):
    listed = (ROOT / "docs" / folder / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs" / folder).glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in listed} == set()


def test_the_reference_shows_every_public_name():
    shown = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    whole = ("precisionbench.published", "precisionbench.results")  # all members are shown
    assert all(f".. automodule:: {module}\n" in shown for module in whole)
    assert {n for n in precisionbench.__all__ if not re.search(rf":: {n}\b", shown)} == set()


@pytest.mark.parametrize("name", ["channels-50", "mislabelled", "overflow"])
def test_a_run_that_pages_read_is_the_one_that_the_tests_diagnose(name):
    shown = precisionbench.load(ROOT / f"docs/records/h100-{name}.json")
    assert shown.data == recorded(name)


def test_the_table_shown_is_that_of_the_saved_record():
    shown = precisionbench.load(ROOT / "docs/records/h200-resnet50-batch100.json")
    table = str(shown).partition("Rows were")[0].strip()
    assert table in (ROOT / "docs/hardware.md").read_text()


def test_the_sessions_that_are_described_are_those_that_there_are():
    there = re.findall(r"^def ([a-z]\w*)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| session |")[2].partition("\n\n")[0]
    described = re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE)))
    assert sorted(described) == sorted(name.replace("_", "-") for name in there)


def test_no_document_holds_a_placeholder():
    for document in DOCUMENTS:
        assert not re.findall(r"@[A-Z]+@|TODO|XXX", document.read_text()), document.name


@pytest.fixture(scope="module")
def same_code():
    """Sessions of a row against itself, by batch and cores."""
    record = json.loads((ROOT / "docs/records/h100-same-code.json").read_text())
    found: dict[tuple[int, int], list[dict]] = {}
    for one in record:
        found.setdefault((one["batch"], one["cores"]), []).append(one)
    return found


ARMS = [(1, 0), (1, 2), (100, 0), (100, 2)]


def test_the_figures_of_the_trial_of_cores_are_those_of_its_record(same_code):
    page = (ROOT / "docs/between-processes.md").read_text()
    packs = [packs_of(same_code[arm]) for arm in ARMS]
    widths = [[Interval(o["value"], o["low"], o["high"]) for o in same_code[arm]] for arm in ARMS]
    shown = {
        "processes, what rounds share": [
            median(run_spread({str(i): row for i, row in enumerate(p)}).sd for p in arm)
            for arm in packs
        ],
        "blocks within one process (sd) |": [median(map(within_sd, arm)) for arm in packs],
        "what rounds share": [
            median(stdev(round_shifts(p).values()) for p in arm) for arm in packs
        ],
        "half-width of the intervals": [
            median(w.relative_half_width for w in arm) for arm in widths
        ],
    }
    table = page.partition("## One affinity")[2]
    for name, values in shown.items():
        line = next(line for line in table.splitlines() if line.startswith(f"| {name}"))
        found = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        assert found == pytest.approx([100 * value for value in values], rel=0.02, abs=0.006), name


def packs_of(sessions: list[dict]) -> list[list[list[Block]]]:
    """The rows' blocks of each pack."""
    packs: dict[str, list[list[Block]]] = {}
    for one in sessions:
        for blocks in one["blocks"].values():
            row = [Block(round_, place, replica, (s,)) for round_, place, replica, s in blocks]
            packs.setdefault(one["pack"], []).append(row)
    return list(packs.values())


def test_the_false_alarms_shown_are_those_of_the_record(same_code):
    page = (ROOT / "docs/between-processes.md").read_text()
    cores = {0: "all cores", 2: "two cores (the default)"}
    for arm in ARMS:
        sessions = same_code[arm]
        false = sum(one["verdict"] in ("faster", "slower") for one in sessions)
        excluded = sum(not one["low"] <= 1 <= one["high"] for one in sessions)
        counts = f"{len(sessions)} | {false} | {excluded} |"
        assert f"| NVIDIA H100, batch {arm[0]}, {cores[arm[1]]} | {counts}" in page


def test_the_replayed_sessions_shown_are_those_of_the_record(same_code, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    replayed = importlib.import_module("replayed_sessions").replayed
    page = " ".join((ROOT / "docs/between-processes.md").read_text().split())
    assert "with two cores the interval excludes 1 in 3 of 100 sessions at batch 1" in page
    sessions = [replayed(one["blocks"]) for one in same_code[100, 2]]
    assert len(sessions) == 60
    assert not any(one.interval.excludes_1 for one in sessions)
    assert median(one.rounds for one in sessions) == 4
    width = median(one.interval.relative_half_width for one in sessions)
    assert f"which end after 4 rounds with a half-width of {100 * width:.2f} % (medians)" in page


def test_the_sessions_in_one_process_shown_are_those_of_the_record():
    record = json.loads((ROOT / "docs/records/cpu-same-twice-inline.json").read_text())
    false = sum(one["verdict"] in ("faster", "slower") for one in record)
    page = " ".join((ROOT / "docs/between-processes.md").read_text().split())
    assert (
        f"On two CPU cores {len(record)} such sessions were called different in {false} (" in page
    )


def test_the_doctors_lines_shown_are_what_the_saved_readings_give():
    document = json.loads((ROOT / "docs/records/h100-doctor.json").read_text())
    readings = json_format.structured(document["readings"], Readings)
    shown = (ROOT / "docs/doctor.md").read_text()
    assert to_text(checks_of(readings), readings.noise_floor) in shown


def test_the_ladders_that_are_shown_are_those_of_their_record():
    ladders = json.loads((ROOT / "docs/records/h100-ladders.json").read_text())["ladders"]
    page = (ROOT / "docs/ladder.md").read_text()
    names = ("resnet50-1", "resnet50-100", "resnet50-256")
    for rows in zip(*(ladders[name]["rows"] for name in names), strict=True):
        cells = [
            f"{row['items_per_s']:,.0f} images/s"
            if row["factor"] is None
            else f"{row['factor']:.3g}x ±{row['half_width_percent']:.2g} %"
            for row in rows
        ]
        assert f"| {rows[0]['change']} | {' | '.join(cells)} |" in page
    assert f"All three took {sum(ladders[name]['seconds'] for name in names):.0f} s" in page


def test_each_rung_agrees_with_a_pair_of_its_own_and_their_product_with_first_over_last():
    data = precisionbench.load(ROOT / "docs/records/h100-ladder-256.json").data
    pairs = json.loads((ROOT / "docs/records/h100-ladder-256-pairs.json").read_text())
    for pair in pairs:
        mine = per_item_ratio(data, pair["before"], pair["after"])
        assert mine.low <= pair["high"]
        assert pair["low"] <= mine.high
    product = math.prod(pair["value"] for pair in pairs)
    direct = per_item_ratio(data, pairs[0]["before"], pairs[-1]["after"]).value
    assert product == pytest.approx(direct, rel=0.05)
    page = (ROOT / "docs/ladder.md").read_text()
    assert f"{product:.3f}, and first against last, in the ladder's own rounds, {direct:.3f}" in (
        " ".join(page.split())
    )
