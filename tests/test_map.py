"""The map of the code is drawn from the import contract and the docstrings of the packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "CONTRIBUTING.md").exists(), reason="the tests stand alone, without the repository"
)
REMEDY = "run python docs/draw_map.py"


@pytest.fixture(scope="module")
def draw_map() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_map", ROOT / "docs/draw_map.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_up_to_date(draw_map):
    assert draw_map.PICTURE.read_bytes() == draw_map.picture().encode(), REMEDY


def test_the_table_of_packages_is_up_to_date(draw_map):
    page = draw_map.TABLE.read_text(encoding="utf-8")
    assert page == draw_map.with_table(page), REMEDY


def test_every_package_is_on_the_map(draw_map):
    drawn = {drawn.name for layer in draw_map.layers() for drawn in layer}
    source = ROOT / "src/precisionbench"
    packages = {path.parent.name for path in source.glob("*/__init__.py")}
    modules = {path.stem for path in source.glob("*.py") if not path.stem.startswith("_")}
    assert drawn == packages | modules


def test_every_package_says_its_job_in_a_sentence(draw_map):
    for layer in draw_map.layers():
        for drawn in layer:
            assert 20 < len(drawn.job) < 100, drawn
