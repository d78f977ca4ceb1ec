"""Pages of causes have one form, and show what the code prints; so does the page on `check`."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import torch

from precisionbench.cli.main import main
from precisionbench.diagnosis.causes import CAUSES
from precisionbench.scriptcheck.rules import RULES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/causes"
HEADINGS = [
    "How it shows",
    "Command",
    "Output",
    "Measured",
    "What to do",
    "Not to be confused with",
    "Further reading",
]
pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="the tests stand alone, without the repository"
)
NAMES = [cause.name for cause in CAUSES]


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", page(name), re.DOTALL)


def section(name: str, heading: str) -> str:
    return page(name).partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def cause_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cause_pages", ROOT / "docs/cause_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_a_page_has_the_form_of_all_others(cause):
    text = page(cause.name)
    title = text.partition("\n")[0].removeprefix("# ")
    assert title.lower() == cause.title.lower()
    assert f"[{title}]({cause.name}.md)" in page("README")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert text.split("\n\n")[1].startswith(f"`{cause.name}`. ")
    assert not cause.experiment or f"`{cause.experiment}`" in text
    assert "](https://" in section(cause.name, "Further reading")


def test_no_page_is_of_a_cause_that_is_not_there():
    assert {file.stem for file in FOLDER.glob("*.md")} == {*NAMES, "README"}


def test_every_problem_of_a_script_has_a_section_of_one_form():
    shown = (ROOT / "docs/checking-a-script.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## )", shown, re.MULTILINE | re.DOTALL))
    assert list(sections) == [rule.name for rule in RULES]
    for text in sections.values():
        parts = re.findall(r"^- (Symptom|Found|Suspected|Fix|Not to be confused|More)", text, re.M)
        assert list(dict.fromkeys(parts)) in (
            ["Symptom", status, "Fix", "Not to be confused", "More"]
            for status in ("Found", "Suspected")
        )


def test_the_report_of_a_script_is_what_is_printed(cause_pages):
    shown = (ROOT / "docs/checking-a-script.md").read_text(encoding="utf-8")
    assert shown == cause_pages.with_outputs(shown), cause_pages.REMEDY


@pytest.mark.uncounted
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_what_the_code_prints(name, cause_pages):
    assert page(name) == cause_pages.with_outputs(page(name)), cause_pages.REMEDY


@pytest.mark.parametrize("name", NAMES)
def test_figures_that_are_called_measured_are_in_an_output(name):
    printed = "".join(blocks(name, "text"))
    text = re.sub(r"```.*?```", "", section(name, "Measured"), flags=re.DOTALL)
    figures = re.findall(r"\d[\d.,e+]*(?:x|%| [µm]s| TFLOP/s| MB)(?!\w)", text)
    assert [figure for figure in figures if figure not in printed] == []


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_arguments_that_the_command_line_takes(name):
    for line in "".join(blocks(name, "sh")).replace("\\\n", "").splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "precisionbench"
        main.commands[command].make_context(command, arguments)


@pytest.mark.uncounted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if "# mine.py" in page(name)])
def test_models_of_the_pages_can_be_called(name, dtype):
    """Weights are left uninitialised, which takes no time."""
    (source,) = blocks(name, "python")
    namespace: dict = {}
    exec(source, namespace)
    with torch.device("meta"):
        model, inputs = namespace["make"](batch_size=2)
    model = model.to_empty(device="cpu").eval().to(dtype)
    with torch.inference_mode():
        output = model(torch.zeros(inputs.shape, dtype=dtype))
    assert output.shape == inputs.shape
