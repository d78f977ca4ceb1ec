"""The source keeps its limits: modules at the top level, lengths, direction of imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks/code_structure.py"
pytestmark = pytest.mark.skipif(
    not SCRIPT.exists(), reason="the tests stand alone, without the repository"
)
CONTRACT = """
[tool.importlinter]
root_package = "precisionbench"

[[tool.importlinter.contracts]]
type = "layers"
layers = ["precisionbench.above", "precisionbench.below | precisionbench.beside"]
"""
SHORT = "def short():\n    pass\n"
LONG = "def long():\n" + "    print()\n" * 40
DOCUMENTED = 'def documented():\n    """Text.\n' + "\n" * 50 + '    """\n    return 1\n'
DECLARATION = "def declaration(\n" + "".join(f"    a{i},\n" for i in range(40)) + "):\n    pass\n"


def run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=script.parent
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The script beside a source tree that keeps every limit."""
    source = tmp_path / "src/precisionbench"
    for package in ("above", "below", "beside"):
        (source / package).mkdir(parents=True)
        (source / package / "__init__.py").write_text("class One:\n    pass\n" + SHORT)
    (source / "__init__.py").touch()
    (source / "above/__init__.py").write_text("import precisionbench.below\n")
    (source / "above/functions.py").write_text(DOCUMENTED + DECLARATION)
    (tmp_path / "pyproject.toml").write_text(CONTRACT)
    (tmp_path / "benchmarks").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / "benchmarks"))


def test_the_source_keeps_every_limit():
    found = run(SCRIPT)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_tree_within_the_limits_passes(tree):
    found = run(tree)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "longest declaration            43 (above/functions.py:declaration)" in found.stdout


@pytest.mark.parametrize(
    ("path", "text", "reported"),
    [
        ("above/long.py", LONG, "functions over 40 lines: 1 found, at most 0 allowed\n  41 "),
        ("above/long.py", "\n" * 451, "files over 450 lines: 1 found, at most 0 allowed\n  451 "),
        (
            "below/up.py",
            "import precisionbench.above",
            "imports that run upwards: 1 found, at most 0 allowed\n"
            "  precisionbench.below.up -> precisionbench.above\n",
        ),
        (
            "below/across.py",
            "from precisionbench import beside",
            "  precisionbench.below.across -> precisionbench.beside\n",
        ),
    ],
)
def test_what_exceeds_a_limit_is_reported(tree, path, text, reported):
    (tree.parents[1] / "src/precisionbench" / path).write_text(text)
    found = run(tree)
    assert found.returncode == 1
    assert reported in found.stdout


def test_too_many_top_level_modules_are_reported(tree):
    for number in range(9):
        (tree.parents[1] / f"src/precisionbench/module_{number}.py").touch()
    found = run(tree)
    assert found.returncode == 1
    assert "modules at the top level: 9 found, at most 8 allowed\n  module_0\n" in found.stdout
