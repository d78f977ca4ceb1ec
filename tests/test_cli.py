"""The command line, on terminals and in scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import attrs
import click
import pytest
import torch
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import precisionbench as pb
from made_up_results import comparison_data
from made_up_tuning import tuning_data
from precisionbench.cli import main
from precisionbench.cli.output import progress
from precisionbench.cli.thresholds import exit_if_missed
from precisionbench.doctor.examine import Examination
from precisionbench.errors import OutputError
from precisionbench.results.progress import OnProgress, Progress
from precisionbench.scriptcheck.events import Ending
from precisionbench.testing.thresholds import parse as parse_threshold
from terminals import running
from test_doctor import healthy
from test_gap import SQUARE
from test_gap import run as gap_run
from test_safe_text import plain_check

MODEL = """
import torch
def tiny(batch_size=2):
    return torch.nn.Linear(8, 8), torch.rand(batch_size, 8)
def broken():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise IndexError("off by one")
    return Broken(), torch.rand(2, 8)
def interrupted():
    raise KeyboardInterrupt
def hanging():
    import threading
    class Hanging(torch.nn.Module):
        def forward(self, x):
            threading.Event().wait()
    return Hanging(), torch.rand(2, 8)
def zeros():
    return torch.nn.Linear(8, 8), torch.zeros(4, 8)
def talking():
    import os
    print("from Python")
    os.write(1, b"from native code\\n")
    return tiny()
"""


COMMANDS = (
    *("compare", "explain", "ladder", "tune", "show"),
    *("diff", "published", "backends", "examine", "check"),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("listed_once")


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


def run(*args: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(main, args)


INLINE = ("--device", "cpu", "--launcher", "inline", "--budget", "0.1")
WITH_EVIDENCE = (*INLINE, "--budget", "6")  # the last one counts


def compare(*args: str) -> Result:
    return run("compare", *args, *INLINE, "--no-evidence")


class Compared(NamedTuple):
    """A finished `compare` with all that it wrote."""

    done: Result
    output: str
    html: str


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Compared:
    folder = tmp_path_factory.mktemp("compared")
    (folder / "cli_models.py").write_text(MODEL)
    output, html = str(folder / "r.json"), str(folder / "r.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delitem(sys.modules, "cli_models", raising=False)
        rows = ("-b", "half", "-b", "half:dtype=bfloat16", "--batch-size", "3", "--seed", "3")
        files = ("-o", output, "--html", html, "--explain", "--experiments", "none")
        return Compared(run("compare", "cli_models:tiny", *rows, *files, *INLINE), output, html)


def test_compare_prints_the_table_and_its_progress_to_standard_error(compared):
    done = compared.done
    assert done.exit_code == 0, done.output
    assert "cli_models:tiny, batch 3" in done.stdout
    assert "half:dtype=bfloat16" in done.stdout
    assert "[1/3] eager done" in done.stderr


def test_json_goes_alone_to_standard_output(here):
    done = compare("cli_models:tiny", "-b", "eager", "--json")
    document = json.loads(done.stdout)
    assert document["format"] == "precisionbench.comparison"


def test_the_result_is_saved_and_shown_again(compared):
    shown = run("show", compared.output)
    assert shown.exit_code == 0
    assert "cli_models:tiny" in shown.stdout
    assert "seed 3" in shown.stdout
    assert json.loads(run("show", compared.output, "--json").stdout)["seed"] == 3
    assert "| `half` |" in run("show", compared.output, "--markdown").stdout


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


def test_backends_lists_available_and_missing_backends():
    done = run("backends")
    assert done.exit_code == 0
    assert "eager\n  Eager PyTorch in float32" in done.stdout
    assert "precision=fp32 | tf32" in done.stdout
    assert "workspace_bytes=a whole number" in done.stdout
    listed = json.loads(run("backends", "--json").stdout)["backends"]
    assert {"apex-amp", "eager", "half", "torch2trt"} <= {entry["name"] for entry in listed}


def test_backends_that_are_ready_come_first():
    listed = json.loads(run("backends", "--json").stdout)["backends"]
    available = [entry["available"] for entry in listed]
    assert available == sorted(available, reverse=True)
    assert all(entry["remedy"] for entry in listed if not entry["available"])


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
    for command in COMMANDS:
        done = run(command, "--help")
        assert "Example:" in done.stdout
        assert f"  precisionbench {command}" in done.stdout
        assert "Exit codes: 0 success, " in done.stdout
        assert "--debug" in done.stdout


def test_help_lists_commands_in_their_usual_order():
    text = run("--help").stdout
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line[2:]]
    assert tuple(listed[: len(COMMANDS)]) == COMMANDS
    assert "..." not in text.partition("Commands:")[2], "a summary is cut"
    assert "Exit codes: 0 success, 1 a threshold was missed" in text


@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_terminals(width):
    for command in COMMANDS:
        done = CliRunner().invoke(main, [command, "--help"], terminal_width=width)
        options = done.stdout.partition("Options:")[2]
        lines = (options if width < 80 else done.stdout).splitlines()
        assert max(map(len, lines)) <= width, command


USAGE = {
    "unknown model": (["torchvision:resnet51"], "did you mean 'resnet50'?"),
    "no such module": (["nowhere:f"], "the module 'nowhere' cannot be imported"),
    "unknown backend": (["cli_models:tiny", "-b", "hlaf"], "did you mean 'half'? known: amp"),
    "two backends in one": (["cli_models:tiny", "-b", "half,amp"], "itself: -b half -b autocast"),
    "a dtype": (["cli_models:tiny", "-b", "float16"], "no backend 'float16'; write 'fp16'"),
    "another dtype": (["cli_models:tiny", "-b", "INT8"], "write 'torchao', 'pt2e', "),
    "capitals": (["cli_models:tiny", "-b", "HALF"], "did you mean 'half'?"),
    "unknown option": (["cli_models:tiny", "-b", "half:type=x"], "has no option 'type'"),
    "wrong value": (["cli_models:tiny", "-b", "half:dtype=x"], "'float16' or 'bfloat16'"),
    "unknown device": (["cli_models:tiny", "--device", "tpu9"], "the device 'tpu9' cannot be used"),
    "no name": (["cli_models:tiny", "-o", ""], "the name of the file is empty; give one"),
    "no folder": (["cli_models:tiny", "-o", "no/r.json"], "there is no folder 'no'"),
    "batch of none": (
        ["cli_models:tiny", "--batch-size", "0"],
        "'0' is not a whole number of 1 or more",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_bad_usage_is_one_sentence_and_exit_code_2(here, case):
    args, message = USAGE[case]
    done = run("compare", *INLINE, *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_class_in_a_file_is_measured_on_inputs_of_a_shape(here):
    (here / "models").mkdir()
    Path("models/mine.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(8, 8)\n"
    )
    shape = ("--input-shape", "8", "--batch-size", "3")
    missed = ("--fail-under", "small>=1000")
    done = compare("models/mine.py:Net", "-b", "small=bf16", *shape, "-o", "r.json", *missed)
    assert done.exit_code == 1, done.output
    found = pb.load("r.json")
    assert found.data.workload.inputs[0].shape == (3, 8)
    assert [row.backend for row in found] == ["eager", "half:dtype=bfloat16"]
    assert found["small"] is found["bf16"]
    assert "small (half:dtype=bfloat16)" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("cli_models:tiny", "--batch-size", "0"), "'0' is not a whole number of 1 or more"),
        (
            ("cli_models:tiny", "--input-shape", "3,a"),
            "'3,a' is not a shape; write it as 3,224",
        ),
        (("cli_models:tiny", "--input-shape", "0"), "'0' is not a shape"),
        ((), "Missing argument 'MODEL"),
        (
            ("cli_models:tiny", "--budget", "1m"),
            "'1m' is not a number of seconds above 0; write ",
        ),
        (
            ("cli_models:tiny", "--budget", "-1"),
            "'-1' is not a number of seconds above 0; write",
        ),
        (("cli_models:tiny", "--budget", "nan"), "'nan' is not a number of seconds"),
    ],
)
def test_a_usual_mistake_is_answered_with_what_to_write(here, args, message):
    for command in ("compare", "ladder"):
        done = run(command, *args)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


def test_several_models_are_measured_and_called_by_their_labels_or_short_names(here):
    labels = ("old=cli_models:tiny", "new=cli_models:zeros")
    backends = ("-b", "eager", "-b", "bf16")
    done = compare(*labels, *backends, "--reference", "old", "-o", "r.json")
    assert done.exit_code == 0, done.output
    found = pb.load("r.json")
    assert list(found.data.models) == ["old", "new"]
    assert found.data.reference_of("new/half:dtype=bfloat16") == "old/half:dtype=bfloat16"
    assert "Each row is compared with the same backend of old." in " ".join(done.stdout.split())
    assert "old: FP16/BF16" in run("explain", "r.json").stdout
    (here / "more.py").write_text(MODEL)
    done = compare("cli_models:tiny", "more.py:tiny", "cli_models:zeros", "-b", "eager", "--json")
    assert list(json.loads(done.stdout)["models"]) == ["cli_models.tiny", "more.tiny", "zeros"]


def test_several_batch_sizes_end_in_the_one_at_which_throughput_stops_growing(here):
    missed = ("--fail-under", "bf16:batch_size=4>=1000")
    done = compare("cli_models:tiny", "-b", "bf16", "--batch-size", "1,4", *missed)
    assert done.exit_code == 1, done.output
    assert "batches 1, 4" in done.stdout
    assert "Batch sizes" in done.stdout
    assert "half:dtype=bfloat16,batch_size=4 measured" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("cli_models:tiny", "cli_models:tiny"), "give each a label: old=cli_models:tiny new="),
        (("a=m:f", "b=m:g", "--explain", "--experiments", "auto"), "are made on one model"),
        (
            ("cli_models:tiny", "--batch-size", "1,x"),
            "'x' is not a whole number of 1 or more; write sizes as 8",
        ),
        (("cli_models:tiny", "--batch-size", "4,0"), "'0' is not a whole number of 1 or more"),
        (("a=m:f", "b=m:g", "--fail-under", "half>=1"), "row 'half' is not measured"),
    ],
)
def test_what_cannot_be_compared_of_several_models_is_said_before_anything_runs(
    here, args, message
):
    done = run("compare", *INLINE, "-b", "half", *args)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("cli_models:tiny", "--batch-size", "1,2"), "'precisionbench compare' measures several"),
        (("a:make", "b:make"), "to compare several, use precisionbench compare a:make b:make"),
    ],
)
def test_a_ladder_of_several_models_or_batches_is_answered_with_the_command_for_them(args, message):
    done = run("ladder", *args)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_the_shape_of_inputs_is_for_experiments_of_a_model(saved):
    done = run("explain", saved, "--input-shape", "3,224,224")
    assert done.exit_code == 2
    assert "--input-shape is for experiments, which require the model" in done.stderr


def test_an_interrupt_is_exit_code_130(here):
    done = compare("cli_models:interrupted", "-b", "half")
    assert done.exit_code == 130
    assert done.stderr.endswith(
        "Interrupted: nothing is kept; with --output, finished rounds are\n"
    )


def test_a_threshold_is_not_decided_by_an_interrupted_run(saved):
    missed = [parse_threshold("half>=1000")]
    with click.Context(main), progress(quiet=True) as on_progress:
        on_progress(Progress("", "interrupted", 0, 0))
        with pytest.raises(SystemExit) as ended:
            exit_if_missed(missed, pb.load(saved))
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("alias", "command"), [("doctor", "examine"), ("diagnose", "explain"), ("against", "diff")]
)
def test_an_alias_of_a_command_does_the_same(alias, command):
    for option in ("--help", "--nonsense"):
        ours, same = run(command, option), run(alias, option)
        assert same.output.replace(f"main {alias}", f"main {command}") == ours.output
        assert same.exit_code == ours.exit_code
    assert f"{alias} for {command}" in " ".join(run("--help").output.split())


def test_the_library_has_the_names_of_the_commands():
    assert pb.diagnose is pb.explain
    assert pb.Comparison.against is pb.Comparison.diff
    own = {"show": pb.load, "backends": pb.list_backends, "diff": pb.Comparison.diff}
    for command in COMMANDS:
        assert command in own or hasattr(pb, command), command


def test_help_and_docs_have_the_same_exit_codes():
    page = (Path(__file__).parents[1] / "docs/command-line.md").read_text()
    table = page.partition("## Exit codes")[2].partition("\n\nIf stdout")[0]
    documented = dict(re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE))
    assert list(documented) == ["0", "1", "2", "3", "130"]
    for command in COMMANDS:
        shown = " ".join(run(command, "--help").stdout.split()).partition("Exit codes: ")[2]
        meanings = dict(re.findall(r"(\d+) (.+?)(?:, (?=\d)|\.$)", shown))
        has_one = command in ("compare", "show", "diff", "check")
        assert meanings.keys() == documented.keys() - (set() if has_one else {"1"}), command
        for code, meaning in meanings.items():
            said = re.findall(r"\w+", documented[code])
            assert {*re.findall(r"\w+", meaning)} <= {*said}, (command, code)


def test_without_any_measured_row_the_exit_code_is_3(here):
    done = compare("cli_models:broken", "-b", "half")
    assert done.exit_code == 3
    assert "eager: the model failed in forward (IndexError: off by one)" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("{", "is not complete JSON"),
        ("<!doctype html>", "is not JSON; give a file that"),
        ("", "is empty; give a file that"),
        ("{}", "not a precisionbench comparison"),
    ],
)
def test_a_bad_result_file_is_one_sentence(here, text, message):
    if text is not None:
        Path("bad.json").write_text(text)
    done = run("show", "bad.json")
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "forms", [("--json", "--markdown"), ("--csv", "--markdown"), ("--rules", "--csv")]
)
def test_output_formats_exclude_each_other(saved, forms):
    done = run("show", saved, *forms)
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


@pytest.mark.parametrize(
    ("command", "required"),
    [
        (("show", "saved.json"), "--html"),
        (("compare", "cli_models:tiny"), "--output or --html"),
        (("ladder", "cli_models:tiny"), "--output or --html"),
    ],
)
def test_overwrite_needs_a_file_to_write(ready, command, required):
    done = run(*command, "--overwrite")
    assert done.exit_code == 2
    assert f"--overwrite requires {required}; add" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("show", "r.json", "--html", "./r.json"),
        ("explain", "r.json", "--html", "r.json"),
        ("explain", "r.json", "cli_models.py:tiny", "--html", "cli_models.py"),
        ("compare", "cli_models.py:tiny", "-o", "cli_models.py"),
        ("compare", "a=cli_models:tiny", "b=cli_models.py:tiny", "--html", "cli_models.py"),
        ("ladder", "cli_models.py:tiny", "-o", "cli_models.py"),
        ("tune", "cli_models.py:tiny", "--html", "cli_models.py"),
        ("study", "show", "r.json", "--html", "r.json"),
        ("study", "merge", "r.json", "--html", "r.json"),
    ],
)
def test_a_file_that_is_read_is_not_overwritten_when_asked_either(here, saved, command):
    Path("r.json").write_bytes(Path(saved).read_bytes())
    before = {file: Path(file).read_bytes() for file in ("r.json", "cli_models.py")}
    done = run(*command, "--overwrite")
    assert done.exit_code == 2, done.output
    assert "is a file that this command reads; give another name" in " ".join(done.stderr.split())
    assert {file: Path(file).read_bytes() for file in before} == before


def test_show_prints_csv(saved):
    done = run("show", saved, "--csv")
    assert done.stdout == pb.load(saved).to_csv()


def test_show_writes_the_report_and_refuses_to_overwrite(saved, tmp_path):
    file = str(tmp_path / "r.html")
    done = run("show", saved, "--html", file)
    assert (done.exit_code, done.stdout) == (0, "")
    assert Path(file).read_text().startswith("<!doctype html>")
    again = run("show", saved, "--html", file)
    assert again.exit_code == 2
    assert "exists; choose another name, or give overwrite" in again.stderr
    assert run("show", saved, "--html", file, "--overwrite", "--json").stdout.startswith("{")


def test_compare_writes_the_report_with_its_diagnosis(compared):
    assert compared.done.exit_code == 0, compared.done.output
    assert "cli_models:tiny" in Path(compared.html).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--html", "no/folder/r.html"), "there is no folder"),
        (("--html", "cli_models.py"), "'cli_models.py' exists"),
        (("--html", "r", "--output", "./r"), "--output and --html name the same file"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_measuring(here, options, message):
    done = compare("cli_models:tiny", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "eager" not in done.stderr


def shown_by_a_process(*args: str, **environ: str) -> bytes:
    command = [sys.executable, "-m", "precisionbench", *args]
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, check=True, timeout=600
    ).stdout


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_signs_that_the_encoding_lacks_are_replaced(saved, encoding):
    text = CliRunner(charset=encoding).invoke(main, ["show", saved]).stdout_bytes.decode(encoding)
    assert "------" in text
    assert "±" in text
    assert "eager" in text


def test_a_process_replaces_signs_that_its_encoding_lacks(saved):
    text = shown_by_a_process("show", saved, PYTHONIOENCODING="cp1252").decode("cp1252")
    assert "------" in text
    assert "±" in text
    assert "eager" in text


def test_a_pipe_gets_colours_only_with_force_color(saved):
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


@pytest.mark.parametrize("command", ["show", "--help"])
def test_a_closed_pipe_is_no_missed_threshold(saved, command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "precisionbench", command, *([saved] * (command == "show"))],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["show", "--help", "--version"])
def test_an_output_that_cannot_be_written_is_one_sentence(saved, command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "precisionbench", command, *([saved] * (command == "show"))],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "the output could not be written (OSError: [Errno 28] No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow  # measures in a process of its own
def test_a_terminal_gets_a_live_line_and_colours(here):
    rows = ("-b", "half", "-b", "apex-amp", "--no-evidence")
    with running("compare", "cli_models:tiny", *rows, *INLINE) as terminal:
        assert terminal.exit_code() == 0
        shown = terminal.plain()
    assert "[1/3] eager: measuring" in shown
    assert "[2/3] half: measuring" in shown
    assert "apex-amp: requires" in shown
    assert "\x1b[" in terminal.shown
    assert "items/s" in shown


LONG_RUN = (
    *("compare", "cli_models:tiny", "-b", "half:dtype=bfloat16", "--device", "cpu"),
    *("--replicas", "1", "--budget", "30", "--no-evidence", "-o", "r.json"),
)


@pytest.mark.slow
def test_the_first_ctrl_c_shows_and_saves_the_finished_rounds(here):
    with running(*LONG_RUN) as terminal:
        terminal.read_until("round 2")
        terminal.interrupt()
        terminal.read_until("stopping; finished rounds are kept")
        assert terminal.exit_code() == 130
        shown = " ".join(terminal.plain().split())
    assert "the run was interrupted: " in shown
    assert pb.load("r.json")["eager"].measurement.ended_by == "interrupted"
    assert not Path("r.json.journal").exists()


@pytest.mark.slow  # measures in a process of its own
def test_a_second_ctrl_c_names_the_journal_of_the_finished_rounds(here):
    with running(*LONG_RUN) as terminal:
        terminal.read_until("round 3")
        terminal.interrupt()
        terminal.read_until("stopping")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        shown = " ".join(terminal.plain().split())
    if "Interrupted" not in shown:
        pytest.skip("it had come to its end when the second one came")
    assert "Interrupted: finished rounds are kept; precisionbench show 'r.json.journal'" in shown
    assert len(pb.load("r.json.journal"))
    assert not Path("r.json").exists()


@pytest.mark.slow  # measures in a process of its own
def test_a_ctrl_c_while_a_backend_hangs_leaves_nothing(here):
    hanging = ("compare", "cli_models:hanging", "-b", "eager", "--device", "cpu")
    with running(*hanging, "--replicas", "1", "-o", "r.json") as terminal:
        terminal.read_until("[1/1] eager: preparing, first call")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        assert "Interrupted: no round was finished, so nothing is kept" in terminal.plain()
    assert not list(here.glob("r.json*"))


@pytest.mark.slow  # measures in a process of its own
@pytest.mark.uncounted
def test_interrupted_experiments_have_no_result_and_the_exit_code_is_130(here):
    measured = run("compare", "cli_models:zeros", "-b", "eager", "-o", "r.json", *WITH_EVIDENCE)
    assert measured.exit_code == 0
    with running("explain", "r.json", "cli_models:zeros") as terminal:
        terminal.read_until("experiments: measuring, round 2")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        shown = " ".join(terminal.plain().split())
    assert "stopping; finished rounds are kept" in shown
    assert "it was interrupted" in shown


def test_quick_is_an_effort_and_another_effort_contradicts_it(here):
    done = run("compare", "cli_models:tiny", "-b", "eager", *INLINE, "--quick", "-o", "q.json")
    assert done.exit_code == 0
    assert pb.load("q.json").data.options["effort"] == "quick"
    assert "a first estimate from at most 6 rounds" in " ".join(done.output.split())
    both = run("compare", "cli_models:tiny", *INLINE, "--quick", "--effort", "thorough")
    assert both.exit_code == 2
    assert "--quick and --effort thorough exclude each other" in both.output


def test_rows_compute_with_the_number_of_threads_that_is_given(here):
    args = ("compare", "cli_models:tiny", "-b", "eager", *INLINE, "--no-evidence")
    done = run(*args, "--threads", "3", "-o", "t.json")
    assert done.exit_code == 0, done.output
    data = pb.load("t.json").data
    assert data.environment.threads == data.options["threads"] == 3
    assert {row.flags["num_threads"] for row in data.results} == {3}
    refused = run(*args, "--threads", "0")
    assert (refused.exit_code, "--threads" in refused.output) == (2, True)
    refused = run(*args, "--threads", "5000")
    assert refused.exit_code == 2
    assert "threads is 5000; give a whole number from 1 to 1024" in refused.output


@pytest.mark.slow  # measures in a process of its own
def test_the_installed_command_finds_functions_in_the_working_directory(tmp_path):
    """Unlike `python -m`, the command that pip installs does not have it on the path."""
    (tmp_path / "mine.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(8, 8), torch.zeros(4, 8)\n"
    )
    command = [
        "-m",
        "precisionbench",
        "compare",
        "mine:make",
        *WITH_EVIDENCE,
        "--quick",
    ]  # experiments use workers
    done = subprocess.run(
        [sys.executable, *command, "-b", "half:dtype=bfloat16", "--explain"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "half:dtype=bfloat16" in done.stdout
    assert "the inputs are zeros" in done.stdout
    assert "experiments run: random-inputs (eager)" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine of the record has a GPU")
def test_experiments_of_a_result_from_another_device_are_refused_with_what_can_be_done(here):
    record = str(Path(__file__).parent.parent / "docs/records/h200-resnet50-batch100.json")
    done = run("explain", record, "cli_models:tiny", "-q")
    assert done.exit_code == 2
    text = " ".join(done.stderr.split())
    assert "the result was measured on cuda:0, which cannot be used here; run experiments" in text
    assert "without the model, the result is explained without experiments" in text


def test_experiments_without_a_model_ask_for_the_argument_model(tmp_path):
    pb.Comparison(comparison_data()).save(tmp_path / "r.json")
    command = ["explain", str(tmp_path / "r.json"), "--experiments", "channels-last"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "experiments require the model: give MODEL after FILE" in done.stderr


# What each command's exit code says; the first is what ends with 0.
ENDS_WELL = {
    "compare": ("cli_models:tiny", "-b", "eager", *INLINE, "--no-evidence"),
    "explain": ("saved.json",),
    "ladder": ("cli_models:tiny", "--device", "cpu", "--budget", "1", "--replicas", "1"),
    "tune": ("cli_models:tiny", "--device", "cpu"),
    "show": ("saved.json",),
    "diff": ("saved.json", "saved.json"),
    "published": ("--device", "h200"),
    "backends": (),
    "examine": ("--quick", "--device", "cpu"),
    "check": ("good.py",),
}  # fmt: skip
FORMATS = {
    "compare": ("comparison", 3),
    "explain": ("diagnosis", 1),
    "ladder": ("ladder", 1),
    "tune": ("tuning", 1),
    "show": ("comparison", 3),
    "diff": ("difference", 1),
    "published": ("published", 1),
    "backends": ("backends", 1),
    "examine": ("examination", 1),
    "check": ("check", 1),
}
BAD = {
    "compare": ("cli_models:tiny", "-b", "hlaf"),
    "explain": ("saved.json", "--to", "no-such-id"),
    "ladder": ("cli_models:tiny", "--to", "no-such-id"),
    "tune": ("cli_models:tiny", "--include", "hlaf"),
    "show": ("nothing.json",),
    "diff": ("saved.json", "nothing.json"),
    "published": ("--id", "no-such-id"),
    "backends": ("--no-such-option",),
    "examine": ("--device", "tpu9"),
    "check": ("nothing.py",),
}


@pytest.fixture
def ready(here, saved) -> Path:
    """The working directory with a result and a script."""
    (here / "good.py").touch()
    return here


@pytest.fixture
def measured_at_once(monkeypatch):
    """The doctor, `check`, `tune` and ladders have their results at once, and report progress.

    Their own tests measure them.
    """
    ladder_rows, examination = pb.Comparison(gap_run(*SQUARE)), Examination(healthy())

    def measured(found: object) -> Callable[..., object]:
        def measure(*_: object, on_progress: OnProgress, **__: object) -> object:
            on_progress(pb.Progress("", "looking", 0, 0, step="nothing"))
            return found

        return measure

    monkeypatch.setattr("precisionbench.measure.compare.compare_with", measured(ladder_rows))
    monkeypatch.setattr("precisionbench.doctor.examine.examine", measured(examination))
    checked = attrs.evolve(plain_check(), breaches=(), ending=Ending("finished", 0))
    monkeypatch.setattr("precisionbench.scriptcheck.check.check", lambda *_, **__: checked)
    tuned = pb.Tuned(tuning_data())
    monkeypatch.setattr("precisionbench.workflows.tuning.tune.tune", measured(tuned))


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_of_a_documented_format(ready, measured_at_once, command):
    options = ("--json", *(() if command not in PROGRESSES else ("--quiet",)))
    done = run(command, *options, *ENDS_WELL[command])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    name, version = FORMATS[command]
    assert (document["format"], document["version"]) == (f"precisionbench.{name}", version)
    assert done.stderr == "", "--quiet was given"
    page = Path(__file__).parent.parent / "docs/command-line.md"
    if page.exists():  # the tests can stand alone, without the repository
        text = page.read_text(encoding="utf-8")
        assert not [key for key in document if f"`{key}`" not in text]
        assert f"| `{document['format']}` | {version} |" in text


PROGRESSES = ("compare", "explain", "ladder", "tune", "examine")


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_usage_of_every_command_is_one_sentence_and_exit_code_2(ready, command):
    done = run(command, *(("--json",) if command != "backends" else ()), *BAD[command])
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missed_threshold_is_exit_code_1(ready):
    data = comparison_data()
    failing = attrs.evolve(data.failures[0], backend="half", name="half")
    broken = attrs.evolve(data, results=data.results[:1], failures=(failing,))
    pb.Comparison(broken).save("broken.json")
    assert run("diff", "saved.json", "broken.json").exit_code == 0
    assert run("diff", "saved.json", "broken.json", "--fail-if-slower").exit_code == 1


def test_no_measured_row_is_exit_code_3(ready, uncompiled):
    done = run("ladder", "cli_models:broken", "--device", "cpu", "--replicas", "1")
    assert done.exit_code == 3
    assert "off by one" in done.stderr


@pytest.mark.slow
def test_json_stands_alone_when_the_model_prints(here):
    arguments = (*INLINE, "--no-evidence", "-b", "eager")
    command = [sys.executable, "-m", "precisionbench", "compare", "cli_models:talking", "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout)["format"] == "precisionbench.comparison"
    assert "from native code" in done.stderr


def test_an_internal_error_is_not_a_missed_threshold(monkeypatch, saved):
    monkeypatch.setattr("precisionbench.report.text.to_text", lambda *_, **__: 1 / 0)
    done = run("show", saved)
    assert done.exit_code == 3
    assert "precisionbench itself failed (ZeroDivisionError: division by zero)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["option", "variable", "before the command"])
def test_debug_shows_the_traceback(here, monkeypatch, way):
    args = ["compare", "cli_models:broken", "-b", "eager", *INLINE, "--no-evidence"]
    if way == "variable":
        monkeypatch.setenv("PRECISIONBENCH_DEBUG", "1")
    else:
        args.insert(0 if way == "before the command" else len(args), "--debug")
    done = run(*args)
    assert done.exit_code == 3
    assert "Traceback" in done.stderr
    assert "IndexError: off by one" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: eager: the model failed in forward")


def test_debug_shows_tracebacks_of_failed_rows(here, monkeypatch):
    monkeypatch.setattr(
        "precisionbench.backends.half.Half.prepare", lambda *_: [].pop(), raising=True
    )
    done = compare("cli_models:tiny", "-b", "half", "--debug")
    assert done.exit_code == 0
    assert "IndexError: pop from empty list" in done.stderr
    assert "Traceback" in done.stderr


def test_quiet_shows_no_progress(here):
    assert compare("cli_models:tiny", "-b", "eager", "--quiet").stderr == ""


def test_wide_shows_memory_on_narrow_terminals(tmp_path):
    data = comparison_data()
    passes = pb.results.Passes(peak_allocated_bytes=10**9)
    row = attrs.evolve(data.results[0], passes=passes)
    pb.Comparison(attrs.evolve(data, results=(row, data.results[1]))).save(tmp_path / "r.json")
    assert "1.00 GB" in run("show", str(tmp_path / "r.json"), "--wide").stdout


PLAIN_TERMINAL = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm"}


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_lines_fit_the_terminal(saved, columns):
    shown = run("show", saved, COLUMNS=columns, **PLAIN_TERMINAL).stdout
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert "1.0e-03" in shown


def test_no_color_is_respected(saved):
    shown = run("show", saved, **PLAIN_TERMINAL).stdout
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m", shown)
    assert not colours


@pytest.mark.parametrize("command", ["show", "diff", "published", "backends", "explain"])
def test_ascii_terminals_get_ascii(saved, command):
    args = {"show": (saved,), "diff": (saved, saved), "explain": (saved,)}.get(command, ())
    shown = CliRunner(charset="ascii").invoke(main, [command, *args]).stdout_bytes
    assert shown.isascii()
    if command == "show":
        assert b"+-" in shown
        assert b"------" in shown


def test_a_process_writes_ascii_to_an_ascii_terminal(saved):
    shown = shown_by_a_process("show", saved, PYTHONIOENCODING="ascii", LANG="C", LC_ALL="C")
    assert shown.isascii()
    assert b"+-" in shown
    assert b"------" in shown


# --- completion -----------------------------------------------------------------------------------


def completed(*args: str) -> list[str]:
    """The completions of the last word."""
    shell = ShellComplete(main, {}, "precisionbench", "_PRECISIONBENCH_COMPLETE")
    return [item.value for item in shell.get_completions(list(args[:-1]), args[-1])]


def test_backends_are_completed_with_their_options_and_values():
    assert completed("compare", "m", "-b", "ha") == ["half"]
    assert completed("compare", "m", "-b", "bf") == ["bf16"]
    assert {"eager", "half", "torch2trt"} <= set(completed("compare", "m", "--reference", ""))
    assert completed("compare", "m", "-b", "half:dtype=") == [
        "half:dtype=float16",
        "half:dtype=bfloat16",
    ]
    further = completed("compare", "m", "-b", "half:dtype=bfloat16,")
    assert "half:dtype=bfloat16,memory_format=channels_last" in further
    assert "half:dtype=bfloat16,batch_size=" in further
    assert not [word for word in further if word.count("dtype=") > 1]
    assert "compile:mode=max-autotune" in completed("ladder", "m", "--start", "compile:mode=")
    assert completed("compare", "m", "-b", "nothing:") == []


def test_completed_options_are_those_of_the_backend(list_once):
    for info in list_once():
        offered = completed("compare", "m", "-b", f"{info.name}:")
        names = {word.partition(":")[2].partition("=")[0] for word in offered}
        assert names == set(info.options), info.name


def test_published_ids_are_completed():
    assert "mlperf-v4.1-h200-resnet50-offline" in completed(
        "explain", "r", "--to", "mlperf-v4.1-h2"
    )
    assert completed("published", "--id", "mlperf-v4.1-h200-res")


def test_result_files_are_completed(here):
    for name in ("run.json", "run.json.journal", "notes.txt"):
        Path(name).touch()
    assert completed("show", "") == ["run.json", "run.json.journal"]
    assert completed("diff", "run.json", "./run.json.") == ["./run.json.journal"]
    assert completed("show", "no") == ["no"], "the shell completes any file"


def test_completing_imports_no_torch(tmp_path):
    environ = {
        "_PRECISIONBENCH_COMPLETE": "zsh_complete",
        "COMP_WORDS": "precisionbench compare m -b half:dty",
        "COMP_CWORD": "4",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    command = [sys.executable, "-m", "precisionbench"]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True)
    assert "half:dtype=float16" in done.stdout.replace("\\", "")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not {"torch", "numpy"} & imported


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_script(shell):
    environ = {**os.environ, "_PRECISIONBENCH_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "precisionbench"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert "_PRECISIONBENCH_COMPLETE" in done.stdout
