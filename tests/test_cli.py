"""The command line as a person and as a script use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import precisionbench as pb
from precisionbench.cli import main
from precisionbench.errors import OutputError
from test_storage import comparison_data

MODEL = """
import torch
def tiny(batch_size=2):
    return torch.nn.Linear(8, 8), torch.rand(batch_size, 8)
def broken():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise IndexError("off by one")
    return Broken(), torch.rand(2, 8)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a module of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "cli_models", raising=False)
    (tmp_path / "cli_models.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def saved(tmp_path) -> str:
    pb.Comparison(comparison_data()).save(tmp_path / "saved.json")
    return str(tmp_path / "saved.json")


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def compare(*args: str) -> Result:
    return run("compare", *args, "--device", "cpu", "--launcher", "inline", "--budget", "0.4")


def test_compare_prints_the_table_and_tells_its_progress_beside_it(here):
    done = compare("cli_models:tiny", "-b", "half:dtype=bfloat16", "--batch-size", "3")
    assert done.exit_code == 0, done.output
    assert "cli_models:tiny, batch 3" in done.stdout
    assert "half:dtype=bfloat16" in done.stdout
    assert "[1/2] eager done" in done.stderr


def test_json_goes_alone_to_standard_output(here):
    done = compare("cli_models:tiny", "-b", "eager", "--json")
    document = json.loads(done.stdout)
    assert document["format"] == "precisionbench.comparison"


def test_the_result_is_saved_and_shown_again(here):
    assert compare("cli_models:tiny", "-b", "half", "-o", "r.json", "--seed", "3").exit_code == 0
    shown = run("show", "r.json")
    assert shown.exit_code == 0
    assert "cli_models:tiny" in shown.stdout
    assert "seed 3" in shown.stdout
    assert json.loads(run("show", "r.json", "--json").stdout)["seed"] == 3
    assert "| `half` |" in run("show", "r.json", "--markdown").stdout


def test_an_output_that_exists_is_refused_before_measuring(here):
    (here / "r.json").write_text("mine")
    done = compare("no_such:model", "-o", "r.json")
    assert done.exit_code == 2
    assert "'r.json' exists" in done.stderr
    assert (here / "r.json").read_text() == "mine"


def test_an_output_that_exists_is_replaced_when_asked(here):
    (here / "r.json").write_text("mine")
    assert compare("cli_models:tiny", "-b", "eager", "-o", "r.json", "--overwrite").exit_code == 0
    assert pb.load("r.json").results


def test_backends_lists_what_there_is_and_how_to_get_the_rest():
    done = run("backends")
    assert done.exit_code == 0
    assert "eager  Eager PyTorch in float32" in done.stdout
    assert "precision=fp32|tf32" in done.stdout
    assert "workspace_bytes=a whole number" in done.stdout
    listed = json.loads(run("backends", "--json").stdout)["backends"]
    assert {"apex-amp", "eager", "half", "torch2trt"} <= {entry["name"] for entry in listed}


def test_show_needs_no_torch(saved):
    code = f"""
import sys
from precisionbench.cli import main
try:
    main(["show", {saved!r}])
except SystemExit as done:
    assert done.code == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NVIDIA Test" in done.stdout


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "precisionbench", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == f"precisionbench, version {pb.__version__}"


def test_help_shows_an_example_for_each_command():
    for command in ("compare", "show", "backends"):
        done = run(command, "--help")
        assert "Example:" in done.stdout
        assert f"precisionbench {command}" in done.stdout
    assert "Exit codes" in run("--help").stdout


USAGE = {
    "unknown model": (["torchvision:resnet51"], "did you mean 'resnet50'?"),
    "no such module": (["nowhere:f"], "the module 'nowhere' cannot be imported"),
    "unknown backend": (["cli_models:tiny", "-b", "hlaf"], "did you mean 'half'? known: apex-amp"),
    "unknown option": (["cli_models:tiny", "-b", "half:type=x"], "has no option 'type'"),
    "wrong value": (["cli_models:tiny", "-b", "half:dtype=x"], "'float16' or 'bfloat16'"),
    "unknown device": (["cli_models:tiny", "--device", "tpu9"], "the device 'tpu9' cannot be used"),
    "no name": (["cli_models:tiny", "-o", ""], "'.' is a folder; give the name of a file"),
    "no folder": (["cli_models:tiny", "-o", "no/r.json"], "there is no folder 'no'"),
    "batch of none": (["cli_models:tiny", "--batch-size", "0"], "0 is not in the range x>=1"),
}


@pytest.mark.parametrize("case", USAGE)
def test_bad_usage_is_one_sentence_and_exit_code_2(here, case):
    args, message = USAGE[case]
    done = run("compare", "--device", "cpu", *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_where_nothing_could_be_measured_the_exit_code_is_3(here):
    done = compare("cli_models:broken", "-b", "half")
    assert done.exit_code == 3
    assert "eager: the model failed in forward (IndexError: off by one)" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no file"), ("{", "is not complete JSON"), ("{}", "no precisionbench result")],
)
def test_a_bad_result_file_is_one_sentence(here, text, message):
    if text is not None:
        Path("bad.json").write_text(text)
    done = run("show", "bad.json")
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize("forms", [("--json", "--markdown"), ("--csv", "--markdown")])
def test_one_form_of_output_at_a_time(saved, forms):
    done = run("show", saved, *forms)
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


def test_show_prints_csv(saved):
    done = run("show", saved, "--csv")
    assert done.stdout == pb.load(saved).to_csv()


def test_show_writes_the_report_and_never_over_another_file(saved, tmp_path):
    file = str(tmp_path / "r.html")
    done = run("show", saved, "--html", file)
    assert (done.exit_code, done.stdout) == (0, "")
    assert Path(file).read_text().startswith("<!doctype html>")
    again = run("show", saved, "--html", file)
    assert again.exit_code == 2
    assert "exists; choose another name, or pass overwrite" in again.stderr
    assert run("show", saved, "--html", file, "--overwrite", "--json").stdout.startswith("{")


def test_compare_writes_the_report_with_its_experiments(here):
    done = compare(
        "cli_models:tiny",
        "-b",
        "half:dtype=bfloat16",
        "--html",
        "r.html",
        "--explain",
        *("--experiments", "none"),
    )
    assert done.exit_code == 0, done.output
    assert "cli_models:tiny" in Path("r.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--html", "no/folder/r.html"), "there is no folder"),
        (("--html", "cli_models.py"), "'cli_models.py' exists"),
        (("--html", "r", "--output", "./r"), "--output and --html name the same file"),
    ],
)
def test_a_report_that_could_not_be_written_is_told_before_measuring(here, options, message):
    done = compare("cli_models:tiny", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "eager" not in done.stderr


def shown_by_a_process(*args: str, **environ: str) -> bytes:
    command = [sys.executable, "-m", "precisionbench", *args]
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, check=True, timeout=120
    ).stdout


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_a_terminal_that_lacks_our_signs_gets_plain_ones(saved, encoding):
    text = shown_by_a_process("show", saved, PYTHONIOENCODING=encoding).decode(encoding)
    assert "------" in text
    assert "±" in text
    assert "eager" in text


def test_a_pipe_gets_no_colours_unless_asked_for(saved):
    assert b"\x1b[" not in shown_by_a_process("show", saved)
    assert b"\x1b[" in shown_by_a_process("show", saved, FORCE_COLOR="1")


def test_a_result_that_cannot_be_saved_has_been_shown(here, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(pb.Comparison, "save", full)
    done = compare("cli_models:tiny", "-b", "eager", "-o", "r.json")
    assert done.exit_code == 2
    assert "the disk is full" in done.stderr
    assert "cli_models:tiny, batch" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_one_sentence(saved):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "precisionbench", "show", saved],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "the output could not be written (OSError: [Errno 28] No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def on_a_terminal(code: str) -> str:
    """Run Python code on a pseudo-terminal of 100 columns and give what appears on it."""
    import pty

    terminal, theirs = pty.openpty()
    environ = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(terminal, 4096):
            output += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        process.kill()
        process.wait(60)
        os.close(terminal)
    return output.decode()


def test_a_terminal_gets_a_live_line_and_colours(here):
    code = f"""
import sys
sys.argv = ["precisionbench", "compare", "cli_models:tiny", "-b", "half", "-b", "apex-amp",
            "--device", "cpu", "--launcher", "inline", "--budget", "0.5"]
sys.path.insert(0, {str(here)!r})
from precisionbench.cli import main
main()
"""
    shown = on_a_terminal(code)
    assert "[1/3] eager: measuring" in shown
    assert "[2/3] half: measuring" in shown
    assert "apex-amp: needs" in shown
    assert "\x1b[" in shown
    assert "items/s" in shown


def test_a_function_in_the_working_directory_is_found_by_the_installed_command(tmp_path):
    """Unlike `python -m`, the command that pip installs does not have it on the path."""
    (tmp_path / "mine.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(8, 8), torch.zeros(4, 8)\n"
    )
    command = ["-m", "precisionbench", "compare", "mine:make", "--device", "cpu", "--budget", "1"]
    done = subprocess.run(
        [sys.executable, *command, "-b", "half:dtype=bfloat16", "--explain"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "half:dtype=bfloat16" in done.stdout
    assert "the inputs are zeros" in done.stdout
    assert "experiments made: random-inputs (eager)" in done.stdout
