"""A checked script runs as by `python script.py`, and may end in any way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import precisionbench as pb
from precisionbench.cli import main
from precisionbench.errors import OutputError, SpecError
from precisionbench.scriptcheck.check import evaluate
from precisionbench.scriptcheck.events import Ending, Place
from precisionbench.scriptcheck.script_process import observe
from scripts import CONSTANT_INPUTS, confirmed

TIME_LIMIT_S = 1.5
CHECK = [sys.executable, "-m", "precisionbench", "check"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_fresh(source: str) -> pb.Check:
    """Check a script in a fresh process."""
    Path("script.py").write_text(source)
    return pb.check("script.py", timeout_s=120)


def test_a_disk_that_cannot_hold_what_was_observed_is_an_error():
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
    with pytest.raises(OutputError, match="could not be written to .*; free space there, or set"):
        check_fresh(full)
    with pytest.raises(OutputError, match="could not be written to"):
        check_fresh(f"{full}import os; os._exit(0)")


def test_arguments_sibling_modules_and_standard_input(here):
    (here / "elsewhere").mkdir()
    (here / "elsewhere/sibling.py").write_text("WORD = 'a sibling'\n")
    (here / "elsewhere/script.py").write_text(
        "import argparse, os, sys\n"
        "from sibling import WORD\n"
        "if __name__ == '__main__':\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--batch', type=int)\n"
        "    print(WORD, parser.parse_args().batch, os.getcwd(), __file__, sys.argv[0])\n"
        "    print(repr(sys.stdin.read()), sys.path[0])\n"
    )
    name = "elsewhere/script.py"
    done = subprocess.run(
        [*CHECK, name, "--batch", "3"], input="typed", capture_output=True, text=True
    )
    assert done.stderr.splitlines() == [
        f"a sibling 3 {here} {name} {name}",
        f"'typed' {here / 'elsewhere'}",
    ]
    assert done.returncode == 3
    assert "no call of a model was observed" in done.stdout


@pytest.mark.slow  # processes of their own
def test_environment_variables_set_before_importing_torch_take_effect(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    source = (
        "import os, sys\nassert 'torch' not in sys.modules\nassert 'numpy' not in sys.modules\n"
    )
    source += "os.environ['OMP_NUM_THREADS'] = '1'\nimport torch\n"
    source += "assert torch.get_num_threads() == 1\n"
    assert check_fresh(source).ending == Ending("finished", 0)


@pytest.mark.workers_counted
def test_readings_keep_the_behaviour_of_numbers():
    source = """
import copy, json, pickle, time
import numpy
a, b, n = time.time(), time.perf_counter(), time.monotonic_ns()
assert isinstance(a, float) and isinstance(n, int)
assert json.loads(json.dumps([a, n])) == [a, n]
assert type(pickle.loads(pickle.dumps(b))) is float and type(copy.deepcopy(n)) is int
assert numpy.array([a]).dtype == float and f"{a:.3f}" == f"{float(a):.3f}"
assert type(a - 1) is float and type(time.time() - a) is float and time.time() >= a
time.sleep(0.01)
assert 0.01 <= time.perf_counter() - b < 60 and time.monotonic_ns() - n >= 10_000_000
"""
    check = check_fresh(source)
    assert check.ending == Ending("finished", 0)
    assert check.models == 0


@pytest.mark.slow  # processes of their own
def test_torch_works_as_without_observation(check_script):
    source = """
import copy, pickle, torch
from precisionbench.torchtools.global_state import read_flags
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.TransformerEncoderLayer(4, 2, 8))
model = pickle.loads(pickle.dumps(copy.deepcopy(model.eval())))
x = torch.rand(2, 3, 4)
compiled = torch.compile(model, backend="eager", fullgraph=True)
with torch.no_grad():
    assert torch.equal(compiled(x), model(x))
    assert torch.equal(torch.jit.trace(model[0], x)(x), model[0](x))
    assert torch.equal(torch.fx.symbolic_trace(model[0])(x), model[0](x))
assert x.sum().item() == float(x.sum()) and bool(x.any()) and x.tolist() and x.numpy() is not None
assert x.to(torch.float64).dtype == torch.float64 and x.cpu() is x
"""
    check = check_script(source)
    assert check.ending == Ending("finished", 0), check.ending
    assert check.breaches == ()


def test_processes_and_threads_of_the_script(check_script):
    source = """
import os, threading, time, torch
model, x = torch.nn.Linear(8, 8).eval(), torch.zeros(4, 8)
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
def later():
    time.sleep(0.3)
    with torch.no_grad():
        model(x)
        start = time.perf_counter()
        for _ in range(2000): model(x)
        print(time.perf_counter() - start)
threading.Thread(target=later).start()
"""
    assert confirmed(check_script(source)) == ["constant-inputs"]


class TestEndings:
    """How a script ends, and that what was observed until then is reported."""

    def test_an_exception(self, check_script):
        check = check_script(CONSTANT_INPUTS + "raise ValueError('half way')\n")
        assert check.ending.kind == "raised"
        assert check.ending.says == "ValueError: half way"
        assert check.ending.place == Place("script.py", len(CONSTANT_INPUTS.splitlines()) + 1)
        assert confirmed(check) == ["constant-inputs"]
        assert "script.py failed with exit status 1" in str(check)

    def test_an_exception_is_shown_as_by_python(self, capfd):
        check_fresh("raise ValueError('half way')\n")
        err = capfd.readouterr().err
        assert "ValueError: half way" in err
        assert "runpy" not in err

    def test_a_syntax_error(self):
        check = check_fresh("import torch\ndef f(:\n")
        assert check.ending.kind == "raised"
        assert check.ending.says.startswith("SyntaxError")
        assert check.ending.place == Place("script.py", 2)

    @pytest.mark.parametrize(
        ("line", "code"),
        [("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1), ("os._exit(4)", 4)],
    )
    def test_an_exit(self, line, code):
        check = check_fresh(f"import os, sys\n{line}\n")
        assert check.ending == Ending("exited", code)

    def test_a_signal(self):
        check = check_fresh("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
        assert check.ending == Ending("killed", 139, "SIGSEGV")
        assert "its observations are lost" in str(check)

    @pytest.mark.slow  # processes of their own
    def test_the_time_limit_ends_a_script_that_catches_everything(self):
        source = CONSTANT_INPUTS + (
            "open('ready', 'w').close()\n"
            "while True:\n    try: time.sleep(0.01)\n    except BaseException: pass\n"
        )
        Path("script.py").write_text(source)
        observations = observe("script.py", [], TIME_LIMIT_S, popen=TimeLimitOnceReady)
        check = evaluate("script.py", source, observations)
        assert check.ending == Ending("timeout")
        assert confirmed(check) == ["constant-inputs"]

    @pytest.mark.slow  # a process of its own
    def test_an_interrupt(self):
        Path("script.py").write_text(
            CONSTANT_INPUTS + "print('ready', flush=True)\ntime.sleep(60)\n"
        )
        process = subprocess.Popen(
            [*CHECK, "script.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a shell may have started these tests with it ignored, which processes inherit
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for line in process.stderr:
            if "ready" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "was interrupted" in out
        assert "constant-inputs" in out

    def test_the_script_ends_when_the_check_is_killed(self):
        Path("script.py").write_text(
            "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
        )
        process = subprocess.Popen(
            [*CHECK, "script.py"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        child = Path("/proc") / process.stderr.readline().strip()
        assert child.exists()
        process.kill()
        process.communicate()
        wait_until(lambda: not child.exists())

    @pytest.mark.skipif(sys.platform != "linux", reason="scripts are supervised on Linux")
    @pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
    def test_a_script_that_holds_the_interpreter_ends_with_the_check_and_its_daemons_do(
        self, here, monkeypatch, name
    ):
        (here / "tmp").mkdir()
        monkeypatch.setenv("TMPDIR", str(here / "tmp"))
        Path("script.py").write_text(STARTS_A_DAEMON + "ctypes.PyDLL(None).sleep(600)\n")
        process = subprocess.Popen([*CHECK, "script.py"], stderr=subprocess.PIPE, text=True)
        pids = process.stderr.readline().split()
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate()
        assert process.returncode == -getattr(signal, name)
        wait_until(lambda: not any(map(is_running, pids)))
        if name == "SIGTERM":
            assert errors == "precisionbench: ended by SIGTERM; nothing is kept\n"
            assert not list((here / "tmp").iterdir())

    @pytest.mark.skipif(sys.platform != "linux", reason="scripts are supervised on Linux")
    def test_daemons_of_a_script_end_with_it(self):
        Path("script.py").write_text(STARTS_A_DAEMON)
        done = subprocess.run([*CHECK, "script.py"], capture_output=True, text=True)
        assert not any(map(is_running, done.stderr.split()))


STARTS_A_DAEMON = """
import ctypes, os, subprocess, sys
command = "setsid sh -c 'echo $$; exec sleep 600 2>/dev/null >&2' & "
started = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
print(os.getpid(), started.stdout.readline().strip(), file=sys.stderr, flush=True)
"""


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


class TimeLimitOnceReady(subprocess.Popen):
    """Reaches its time limit as soon as the script has written the file `ready`."""

    def wait(self, timeout: float | None = None) -> int:
        if timeout == TIME_LIMIT_S:
            wait_until(Path("ready").exists)
            raise subprocess.TimeoutExpired(self.args, timeout)
        return super().wait(timeout)


def test_no_such_script(here):
    with pytest.raises(SpecError, match="there is no script 'none.py'"):
        pb.check("none.py")
    with pytest.raises(SpecError, match="timeout_s is -1; give a number of seconds above 0, or No"):
        pb.check("none.py", timeout_s=-1)
    with pytest.raises(SpecError, match="there is no script"):
        pb.check(str(here))
    with pytest.raises(SpecError, match="give a list"):
        pb.check("none.py", "--batch 8")


def test_the_command_line_gives_json_and_exit_codes(capfd):
    Path("bad.py").write_text(CONSTANT_INPUTS)
    done = CliRunner().invoke(main, ["check", "--json", "bad.py"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["format"] == "precisionbench.check"
    assert document["breaches"][0]["gate"] == "constant-inputs"
    assert CliRunner().invoke(main, ["check", "none.py"]).exit_code == 2
    Path("options.py").write_text("import sys\nprint(sys.argv)\n")
    done = CliRunner().invoke(main, ["check", "options.py", "--help", "-x", "--json", "--", "b"])
    assert done.exit_code == 3
    assert "['options.py', '--help', '-x', '--json', '--', 'b']" in capfd.readouterr().err
    done = CliRunner().invoke(main, ["check", "--help"])
    assert "my_benchmark.py" in done.stdout
