"""Imports: what they load, and the paths that work."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench._internal.moved_modules import MOVED


@cache
def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running some code."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return set(printed.splitlines()[-1].split())


SOURCES = Path(pb.__file__).parent
HEAVY = {"torch", "numpy", "cattrs", "rich", "torchvision", "pynvml", "jinja2"}


@pytest.mark.parametrize("code", ["import precisionbench", "import precisionbench.cli"])
def test_importing_the_package_is_light(code):
    assert not modules_after(code) & HEAVY


def test_ctrl_c_while_the_command_line_is_imported_is_a_sentence():
    code = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "precisionbench.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from precisionbench.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "Interrupted: nothing is kept\n"


def test_a_saved_result_is_read_and_printed_without_torch(tmp_path: Path):
    pb.Comparison(comparison_data()).save(tmp_path / "r.json")
    code = f"""
import precisionbench as pb
comparison = pb.load({str(tmp_path / "r.json")!r})
print(comparison, comparison.to_markdown(), comparison.to_csv())
print(comparison.speedup("half"), comparison["half"].latency)
comparison.save({str(tmp_path / "again.json")!r})
"""
    loaded = modules_after(code)
    assert "cattrs" in loaded
    assert not loaded & {"torch", "pynvml", "jinja2"}


def test_a_report_is_made_without_torch(tmp_path: Path):
    pb.Comparison(comparison_data()).save(tmp_path / "r.json")
    code = f"""
import precisionbench as pb
comparison = pb.load({str(tmp_path / "r.json")!r})
comparison.to_html({str(tmp_path / "r.html")!r})
comparison._repr_html_()
"""
    loaded = modules_after(f"{code}\nprint()")
    assert "jinja2" in loaded
    assert not loaded & {"torch", "pynvml", "rich"}


def test_published_numbers_are_found_and_judged_without_torch():
    code = """
import precisionbench as pb
from precisionbench.report.published import to_json, to_text
records = pb.published.find(device="agx xavier")
assert to_json(records) and to_text(records)
"""
    assert not modules_after(code) & {"torch", "pynvml"}


def test_every_public_name_exists_and_has_a_docstring():
    for name in pb.__all__:
        assert getattr(pb, name).__doc__, name
        assert name in dir(pb)


def test_type_checkers_see_the_names_that_are_loaded_on_first_use():
    tree = ast.parse(Path(pb.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        (line.module.removeprefix("precisionbench."), alias.name)
        for line in block.body
        for alias in line.names
    }
    assert seen == {(module, name) for name, module in pb._MODULES.items()}
    assert list(pb.__all__) == sorted(name for _, name in seen)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'benchmark'"):
        pb.benchmark  # noqa: B018


def test_no_public_function_shares_the_name_of_a_module():
    modules = {path.stem for path in Path(pb.__file__).parent.iterdir()}
    assert not modules & set(pb.__all__)


def test_submodules_are_imported_when_they_are_first_used():
    submodules = {f"precisionbench.{name}" for name in ("errors", "results", "backends")}
    assert not modules_after("import precisionbench") & submodules
    code = (
        "import precisionbench as pb; pb.errors.SpecError; pb.results.Interval; pb.backends.Backend"
    )
    assert modules_after(code) >= submodules


def test_the_package_is_typed():
    assert Path(pb.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("old", MOVED)
def test_old_import_paths_give_the_moved_module(old):
    moved = importlib.import_module(MOVED[old])
    assert importlib.import_module(old) is moved
    assert (moved.__name__, moved.__spec__.name) == (MOVED[old], MOVED[old])


def test_old_import_paths_are_loaded_on_first_use():
    code = """
import sys
import precisionbench
assert not [name for name in sys.modules if name.endswith((".run_diff", ".differences"))]
from precisionbench import differences
from precisionbench.analysis import run_diff
assert differences is run_diff is sys.modules["precisionbench.differences"]
assert run_diff.__spec__.name == "precisionbench.analysis.run_diff"
"""
    modules_after(code)


def test_a_source_tree_that_is_not_installed_says_so(tmp_path: Path):
    (tmp_path / "precisionbench").symlink_to(Path(pb.__file__).parent)
    for folder in (Path(path) for path in sys.path if path.endswith("-packages")):
        for entry in folder.iterdir():
            link = tmp_path / entry.name
            if "precisionbench" not in entry.name and not link.exists():
                link.symlink_to(entry)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from precisionbench.backends import discovery
discovery.make("eager")
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "precisionbench.errors.BackendNotFoundError: precisionbench is on the path but not "
        "installed, so no backend can be found; install it: pip install -e ."
    )


def test_hints_of_classes_can_be_read_by_python_3_10():
    """It refuses a ClassVar without a type, which newer versions allow."""
    sources = {path: path.read_text() for path in SOURCES.rglob("*.py")}
    assert not [path for path, text in sources.items() if re.search(r": ClassVar\b(?!\[)", text)]
