"""Write what the code prints of recorded results into docs: `python docs/cause_pages.py`.

A comment on a page names the output that stands below it:

    <!-- output: explain launch-bound tests/recorded/resnet50-batch1.json.gz -->
    <!-- output: show table tests/recorded/nchw.json.gz -->
    <!-- output: show Notes tests/recorded/nchw.json.gz -->
    <!-- output: examine matmul docs/records/h100-doctor.json -->
    <!-- output: check bench.py docs/checking-a-script.md -->

`explain` is one finding, `show` one paragraph of a comparison, `examine` the lines of a check.
`check` runs the first block `py` of a page. The sentence below the comment names the run. A test
compares every page with what is printed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import attrs

import precisionbench as pb
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.doctor.checks import checks_of
from precisionbench.doctor.readings import Readings
from precisionbench.doctor.text import to_text as examination_text
from precisionbench.report.diagnosis import to_text as diagnosis_text
from precisionbench.report.text import to_text as comparison_text
from precisionbench.results import ComparisonData, Environment, json_format

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs/causes").glob("*.md")), ROOT / "docs/checking-a-script.md"]
OUTPUT = re.compile(r"(<!-- output: (\w+) (\S+) (\S+) -->\n).*?\n```\n", re.DOTALL)
REMEDY = "run python docs/cause_pages.py"


def with_outputs(page: str) -> str:
    """The page with the outputs that its comments name."""
    return OUTPUT.sub(lambda found: found[1] + _run_and_output(*found.groups()[1:]), page)


def _run_and_output(command: str, what: str, name: str) -> str:
    run, output = COMMANDS[command](what, _text(ROOT / name))
    caption = f"Recorded run ({run}; `{name}`):" if run else "Output:"
    return f"{caption}\n\n```text\n{dedent(output)}\n```\n"


def _text(file: Path) -> str:
    whole = file.read_bytes()
    return (gzip.decompress(whole) if file.suffix == ".gz" else whole).decode()


def explained(cause: str, text: str) -> tuple[str, str]:
    """The finding of one cause, as `precisionbench explain` prints it."""
    data = json_format.from_json(text)
    diagnosis = diagnosis_of(data)
    findings = tuple(one for one in diagnosis.findings if one.cause == cause)
    if not findings:
        raise ValueError(f"no finding of {cause}")
    printed = diagnosis_text(attrs.evolve(diagnosis, findings=findings))
    return _run(data), printed.partition("Findings\n")[2].partition("\n\n")[0]


def shown(what: str, text: str) -> tuple[str, str]:
    """The table, or the paragraph that begins with a word, as `precisionbench show` prints it."""
    data = json_format.from_json(text)
    for paragraph in comparison_text(data).split("\n\n"):
        if paragraph.startswith(what) or (what == "table" and "───" in paragraph):
            return _run(data), paragraph.rstrip()
    raise ValueError(f"no paragraph {what}")


def examined(what: str, text: str) -> tuple[str, str]:
    """The lines of one kind of check, as `precisionbench examine` prints them."""
    document = json.loads(text)
    readings = json_format.structured(document["readings"], Readings)
    lines = examination_text(checks_of(readings), readings.noise_floor).splitlines()
    return _machine(readings.environment), "\n".join(line for line in lines if what in line)


def checked(name: str, page: str) -> tuple[str, str]:
    """The report of a script on the page, as `precisionbench check` prints it, without times."""
    here = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path(name).write_text(page.partition("```py\n")[2].partition("```")[0])
            report = str(pb.check(name, timeout_s=120))
        finally:
            os.chdir(here)
    notes = [part for part in report.split("\nNote: ") if "% of the time" not in part]
    timed = re.compile(r",\s+read\s.*?(?=\n\n)", re.DOTALL)
    return "", timed.sub(", read ...", "\nNote: ".join(notes))


def _run(data: ComparisonData) -> str:
    return f"{_machine(data.environment)}, {data.created[:10]}"


def _machine(seen: Environment) -> str:
    device = seen.gpu.name if seen.gpu else f"{seen.cpu}, {seen.cpu_cores} cores"
    return f"{device}, torch {seen.torch}"


COMMANDS: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "explain": explained,
    "show": shown,
    "examine": examined,
    "check": checked,
}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_outputs(path.read_text(encoding="utf-8")), encoding="utf-8")
