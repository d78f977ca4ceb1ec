"""Names that were replaced by the field's own stay out of the code, and old import paths, too."""

from __future__ import annotations

import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.uncounted,
    pytest.mark.skipif(
        not (ROOT / "CONTRIBUTING.md").exists(),
        reason="the tests stand alone, without the repository",
    ),
]
# Old name -> what it is called now; a name that ends with ( is retired as a function only.
RETIRED = {
    "Breach": "Violation",
    "Collected": "Collector",
    "Crew": "WorkerPool",
    "FLOOR_ROUNDS": "MIN_INTERVAL_ROUNDS",
    "Finished": "FinishedRow",
    "Following": "LiveSpeedups",
    "Found": "CauseMatch or RuleMatch",
    "Gate": "Rule",
    "Ground": "Capabilities",
    "KNOWN_SPREAD": "known_noise_floor",
    "Lane": "RowState",
    "Precision": "Accuracy",
    "RemoteSeat": "WorkerBackend",
    "Rules": "Schedule",
    "Scene": "CauseContext or RuleContext",
    "Seat": "PreparedBackend",
    "Sight": "Location",
    "Truth": "Float64Reference",
    "Witness": "Indicator",
    "bound_for": "error_bound",
    "crew": "pool",
    "lane": "row_state",
    "lanes": "row_states",
    "parts_of_one": "parts_of_operation",
    "precision_of": "accuracy_of",
    "process_levels": "replica_levels",
    "roofs_of": "roofline_points",
    "seat": "prepared or replica",
    "seats": "replicas",
    "worth_float32": "layers_to_keep_in_float32",
    "kept(": "cpu_copies",
    "strangers(": "other_processes",
    "told(": "or_unknown",
}
# Old modules below precisionbench: what a comparison is measured with, read with, and checked with.
OLD_MODULES = (
    "arguments|builtin_models|collected|factories|finished|following|interleaved|launchers|plan|"
    "rounds|runner|sequential|workload|agreement|timer|torch_state|trees|environment|memory|nvml|"
    "telemetry|probes.passes|probes.precision|probes.profile|probes.qualification|traces|"
    "backends.compiling|backends.folding|backends.kept|"
    "bundled|files|interrupts|names|packages|recording|comparability|devices|differences|evidence|"
    "flops|journal|progress|quality|results.results|results.records|speedups|storage|"
    "published.reading|published.searching|"
    "diagnosis.diagnosing|diagnosis.precisions|diagnosis.unlike|"
    "assertions|baselines|changes|checking|climbing|doctor.examining|experiments|explaining|thresholds"
).replace(".", "[.]")
OLD_PATH = re.compile(
    rf"\bprecisionbench\.({OLD_MODULES})\b(?!\")|\bfrom precisionbench import ({OLD_MODULES})\b"
)
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks")
# These name old import paths because the paths still work.
ABOUT_OLD_PATHS = ("moved_modules.py", "test_imports.py", Path(__file__).name)


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    written = [*ROOT.glob("*.py"), *ROOT.glob("*.md"), *found]
    return [
        path
        for path in sorted(written)
        if path.suffix in {".py", ".md"}
        and path.name not in {"CHANGELOG.md", *ABOUT_OLD_PATHS}
        and "records" not in path.parts
    ]


def code_spans(text: str) -> str:
    """What stands between backticks, in Markdown or in a docstring."""
    return " ".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def words_of(text: str, is_python: bool) -> Iterator[str]:
    """Identifiers; one that is called or defined as a function comes again with a parenthesis."""
    yield from re.findall(r"\b[A-Za-z_]\w*\b", code_spans(text))
    if not is_python:
        return
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for token, after in itertools.pairwise(tokens):
        if token.type == tokenize.NAME:
            yield token.string
            if after.string == "(":
                yield f"{token.string}("


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seat = told(1)  # a seat", {"seat", "told", "told("}),
        ('"""Gives a `Crew` a lane."""', {"Crew"}),
    ],
)
def test_words_are_identifiers_and_code_in_texts(text, words):
    assert set(words_of(text, is_python=True)) == words


def test_no_retired_name_is_used():
    for path in files():
        used = set(words_of(path.read_text(encoding="utf-8"), path.suffix == ".py"))
        instead = {name: RETIRED[name] for name in used & RETIRED.keys()}
        assert not instead, path.relative_to(ROOT)


def test_no_old_import_path_is_used():
    for path in files():
        assert not OLD_PATH.search(path.read_text(encoding="utf-8")), path.relative_to(ROOT)
