"""`precisionbench check`: each gate has a script that breaks it and a twin that does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import precisionbench as pb
from precisionbench.diagnosis.findings import Status
from precisionbench.errors import SpecError
from precisionbench.scriptcheck import check
from precisionbench.scriptcheck.events import (
    Calls,
    Ending,
    Model,
    Observations,
    Place,
    Reading,
    Segment,
    Timing,
)
from precisionbench.scriptcheck.rule import RuleContext as Scene
from precisionbench.scriptcheck.rules import RULES as GATES
from precisionbench.scriptcheck.rules import breaches
from precisionbench.scriptcheck.static_analysis import Text, read
from precisionbench.scriptcheck.timed_regions import regions
from precisionbench.scriptcheck.violations import PAGE

ROOT = Path(__file__).parent.parent

# Breaks nothing: warm-up, eval mode, no gradients, random inputs, enough calls.
CLEAN = """
import time
import torch
from torch import nn

class Loading(nn.ReLU):
    loaded = False

    def forward(self, x):
        if not self.loaded:
            time.sleep(0.2)
        self.loaded = True
        return super().forward(x)

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Loading(), nn.Conv2d(8, 8, 3))

torch.manual_seed(0)
torch.set_num_threads(1)
x = torch.rand(8, 3, 48, 48)
results = []
for name in ["first", "second"]:
    model = net().eval()
    with torch.no_grad():
        for _ in range(5):
            model(x)
        tic = time.perf_counter()
        for _ in range(40):
            output = model(x)
        toc = time.perf_counter()
    results.append(toc - tic)
    print(name, f"{results[-1]:.3f} s")
"""

# The founding script's first error, by the means of Apex: patched for the process, never undone.
PATCHER = """
import torch.nn.functional as F

def initialize(model, level):
    if level == "O1":
        for name in ("conv2d", "linear", "relu"):
            setattr(F, name, casting(getattr(F, name)))
    return model

def casting(function):
    def cast(*args, **kwargs):
        low = lambda v: v.bfloat16() if isinstance(v, torch.Tensor) else v
        return function(*map(low, args), **{key: low(v) for key, v in kwargs.items()})
    return cast

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
"""
FOUNDING = CLEAN.replace("\ntorch.manual", PATCHER + "\ntorch.manual").replace(
    'for name in ["first", "second"]:\n    model = net().eval()',
    'for name in ["O3", "O1", "O0", "Float32"]:\n    model = initialize(net().eval(), name)',
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(source: str, *args: str, timeout_s: float | None = 120) -> pb.Check:
    Path("script.py").write_text(source)
    return pb.check("script.py", args, timeout_s=timeout_s)


def gates(check: pb.Check) -> list[str]:
    """The gates that are broken for sure."""
    return [breach.gate for breach in check.broken]


def test_a_clean_script_is_accused_of_nothing(here, capfd):
    check = checked(CLEAN)
    assert check.breaches == ()
    assert check.models == 2
    assert check.ending == Ending("finished", 0)
    (timed,) = check.timed
    assert (timed.timings, timed.calls) == (2, 80)
    assert timed.parameters == timed.outputs == ("float32",)
    assert timed.device_s is None
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("first ")
    shown = str(check)
    assert "script.py ran to its end: nothing is broken." in shown
    assert "no GPU was used" in shown
    assert "2 models were timed one after another" in shown


CASES = {
    "no-warm-up": [("range(5)", "range(0)")],
    "train-mode": [("net().eval()", "net()")],
    "gradients-on": [("torch.no_grad()", "torch.enable_grad()")],
    "constant-inputs": [("torch.rand(", "torch.zeros(")],
    "non-finite-outputs": [
        ("net().eval()", "net().eval()\n    model[0].weight.data.fill_(float('inf'))")
    ],
    "half-into-float32": [
        ("x = torch.rand(8, 3, 48, 48)", "x = torch.rand(8, 3, 48, 48).half()"),
        (
            "def net():",
            "class Casting(nn.Conv2d):\n"
            "    def forward(self, x):\n        return super().forward(x.float())\n\ndef net():",
        ),
        ("nn.Sequential(nn.Conv2d(3, 8, 3)", "nn.Sequential(Casting(3, 8, 3)"),
    ],
}


@pytest.mark.parametrize("gate", CASES)
def test_a_broken_gate_is_found_and_no_other(here, gate):
    source = CLEAN
    for old, new in CASES[gate]:
        assert old in source
        source = source.replace(old, new)
    check = checked(source)
    assert gates(check) == [gate]
    (breach,) = check.breaches
    assert breach.sights[0].place.file == "script.py"
    assert breach.evidence
    assert all(number.value >= 0 for number in breach.evidence)
    line = source.splitlines()[breach.sights[0].place.line - 1]
    assert "toc = " in line or "model(x)" in line
    assert breach.link == f"{PAGE}#{gate}"


def test_training_is_timed_in_training_mode_and_with_gradients(here):
    source = CLEAN.replace(".eval()", "").replace("torch.no_grad()", "torch.enable_grad()")
    assert checked(source.replace("output = model(x)", "model(x).sum().backward()")).breaches == ()


def test_a_first_call_that_is_timed_alone_may_be_left_out(here):
    source = """
import time, torch
model, x = torch.nn.Linear(64, 64).eval(), torch.rand(64, 64)
times = []
with torch.inference_mode():
    for _ in range(400):
        start = time.perf_counter_ns()
        model(x)
        times.append(time.perf_counter_ns() - start)
        time.sleep(0)
print(sorted(times)[200])
"""
    check = checked(source)
    assert check.broken == ()
    assert check.timed[0].timings == 400
    assert {breach.gate for breach in check.breaches} <= {"no-warm-up", "too-short"}


class TestPatches:
    """The founding case."""

    def test_models_that_ran_with_anothers_patches_come_first(self, here):
        check = checked(FOUNDING)
        assert gates(check)[0] == "leaked-patches"
        first = check.breaches[0]
        assert first.number == "C15"
        assert [number.value for number in first.evidence] == [2, 3, 2]
        assert len(first.sights) == 2
        assert "since Sequential (model 2, script.py" in first.sights[0].says
        assert "its parameters are float32 and its output bfloat16" in first.sights[0].says

    def test_both_errors_of_the_founding_script(self, here, slow_device):
        launching = "class Net(nn.Sequential):\n    def forward(self, x):\n        launch(0.004)\n"
        launching += "        return super().forward(x)\n"
        source = FOUNDING.replace("import time", "import time\nfrom slow_device import launch")
        source = source.replace("def net():", launching + "\ndef net():")
        check = checked(source.replace("nn.Sequential(nn", "Net(nn"))
        assert gates(check) == ["leaked-patches", "missing-synchronize"]
        assert check.ending.is_whole

    def test_those_that_are_undone_in_time_are_nobodys_affair(self, here):
        undone = FOUNDING.replace("results = []", "results, own = [], dict(vars(F))")
        undone = undone.replace("    results.append", "    vars(F).update(own)\n    results.append")
        assert checked(undone).breaches == ()

    def test_a_last_model_that_is_patched_by_design_is_nobodys_affair(self, here):
        assert checked(FOUNDING.replace('"O0", "Float32"', "")).breaches == ()

    def test_the_same_model_before_and_after(self, here):
        source = FOUNDING.replace("results = []", "results, shared = [], net().eval()")
        source = source.replace('["O3", "O1", "O0", "Float32"]', '["O0", "O1", "Float32"]')
        source = source.replace(
            "initialize(net().eval(), name)",
            "shared if name != 'O1' else initialize(net().eval(), name)",
        )
        (breach,) = checked(source).broken
        assert breach.gate == "leaked-patches"
        assert breach.evidence[0].value == 1

    def test_patches_without_effect_are_only_suspected(self, here):
        harmless = FOUNDING.replace("v.bfloat16() if isinstance(v, torch.Tensor) else v", "v")
        check = checked(harmless)
        assert check.broken == ()
        assert [breach.gate for breach in check.breaches] == ["leaked-patches"]

    @pytest.mark.parametrize(
        ("levels", "accused"), [(["O1", "O0"], 1), (["O1", "O1"], 0), (["O2", "O0"], 0)]
    )
    def test_whoever_was_given_to_apex_at_o1_is_meant_to_be_patched(self, here, levels, accused):
        """A stand-in for Apex; test_gpu_check.py has the real one."""
        (here / "apex").mkdir()
        (here / "apex/__init__.py").write_text("from . import amp\n")
        patcher = PATCHER.partition("def net")[0].replace("level", "opt_level")
        (here / "apex/amp.py").write_text(f"import torch\n{patcher}")
        source = CLEAN.replace("import torch\n", "import torch\nimport apex.amp as amp\n")
        source = source.replace("nn.BatchNorm2d(8), ", "")
        source = source.replace('["first", "second"]', str(levels))
        check = checked(
            source.replace("net().eval()", "amp.initialize(net().eval(), opt_level=name)")
        )
        assert len(check.broken) == bool(accused)
        if accused:
            assert check.broken[0].evidence[0].value == accused
            assert "since Apex O1 for Sequential (model 1" in check.broken[0].sights[0].says


@pytest.fixture
def slow_device(monkeypatch):
    """Let the script's device be one that works on its own time."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    boot = check.BOOT.replace(
        "main(sys.argv[1:])", "import slow_device; main(sys.argv[1:], slow_device.SlowDevice)"
    )
    assert boot != check.BOOT
    monkeypatch.setattr(check, "BOOT", boot)


class TestDevice:
    """What is seen of a device that works while the script goes on."""

    SYNCHRONIZED = """
import torch
from time import perf_counter as now
from slow_device import launch, synchronize

class Net(torch.nn.Module):
    def forward(self, x):
        launch(0.005)
        return x + 1

model, x = Net(), torch.rand(8)
for _ in range(3):
    model(x)
synchronize()
start = now()
for _ in range(20):
    model(x)
synchronize()
stop = now()
print(stop - start)
"""

    def test_a_script_that_waits_is_not_accused(self, here, slow_device):
        check = checked(self.SYNCHRONIZED)
        assert check.breaches == ()
        assert check.timed[0].device_s == pytest.approx(0.1, rel=0.3)

    def test_one_that_does_not_is_told_by_how_much_it_is_wrong(self, here, slow_device):
        (breach,) = checked(self.SYNCHRONIZED.replace("synchronize()\n", "\n")).broken
        assert breach.gate == "missing-synchronize"
        early, was_read, really, share = breach.evidence
        assert early.value == 1
        assert was_read.value < 0.05
        assert really.value == pytest.approx(0.1, rel=0.1)
        assert share.value == pytest.approx(was_read.value / really.value)
        place = breach.sights[0].place
        assert (place.file, place.line) == ("script.py", 19)
        assert "started at line 15" in breach.sights[0].says

    def test_a_loop_that_looks_at_the_clock_is_not_a_timing(self, here, slow_device):
        loop = "t0 = now()\nwhile now() - t0 < 0.05:\n    model(x)\nsynchronize()\nstart = now()"
        assert checked(self.SYNCHRONIZED.replace("start = now()", loop)).breaches == ()

    def test_nor_where_the_script_is_named_by_its_whole_path(self, here, slow_device):
        loop = "t0 = now()\nwhile now() - t0 < 0.05:\n    model(x)\nsynchronize()\nstart = now()"
        Path("s.py").write_text(self.SYNCHRONIZED.replace("start = now()", loop))
        assert pb.check(here / "s.py").breaches == ()

    def test_timeit_is_seen(self, here, slow_device):
        source = self.SYNCHRONIZED.partition("start = now()")[0]
        source += "import timeit\nprint(timeit.timeit(lambda: model(x), number=20))\n"
        (breach,) = checked(source).broken
        assert breach.gate == "missing-synchronize"
        assert breach.sights[0].place == Place("script.py", 16)

    def test_readings_in_a_list_are_seen(self, here, slow_device):
        source = (
            self.SYNCHRONIZED.partition("start = now()")[0]
            + """
import numpy
readings = [now()]
for _ in range(20):
    model(x)
    readings.append(now())
print(numpy.diff(readings))
"""
        )
        assert gates(checked(source)) == ["missing-synchronize"]

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            ("model(x).sum().item()", ".item()"),
            ("float(model(x).sum())", "float()"),
            ("model(host.to('cpu', copy=True))", ".to('cuda')"),
        ],
    )
    def test_copies_and_waits_in_the_loop_are_named_with_their_line(
        self, here, slow_device, line, kind
    ):
        source = self.SYNCHRONIZED.replace("20):\n    model(x)", f"20):\n    {line}")
        source = source.replace(
            "start = now()", "host = torch.rand(8)\nhost.on_host = True\nstart = now()"
        )
        (breach,) = checked(source).broken
        assert breach.gate == "host-copies"
        assert breach.evidence[0].name == f"{kind} at script.py:19"
        assert breach.evidence[0].value == 20

    def test_one_hidden_in_the_model_is_found_there(self, here, slow_device):
        hidden = self.SYNCHRONIZED.replace("return x + 1", "return x + x.max().item()")
        (breach,) = checked(hidden).broken
        assert breach.sights[0].says == ".item() inside the model"
        assert breach.sights[0].place.line == 9

    def test_fetching_once_at_the_end_is_a_way_to_wait(self, here, slow_device):
        source = self.SYNCHRONIZED.replace(
            "synchronize()\nstop", "model(x).cpu()\nsynchronize()\nstop"
        )
        assert checked(source).breaches == ()


class TestTheScriptsOwnWays:
    """It runs as by `python script.py`."""

    def test_main_arguments_siblings_and_standard_input(self, here, capfd):
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
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "precisionbench",
                "check",
                "elsewhere/script.py",
                "--batch",
                "3",
            ],
            input="typed",
            capture_output=True,
            text=True,
        )
        name = "elsewhere/script.py"
        assert done.stderr.splitlines() == [
            f"a sibling 3 {here} {name} {name}",
            f"'typed' {here / 'elsewhere'}",
        ]
        assert done.returncode == 3
        assert "no model was called" in done.stdout

    def test_what_it_sets_before_it_imports_torch_counts(self, here):
        source = (
            "import os, sys\nassert 'torch' not in sys.modules\nassert 'numpy' not in sys.modules\n"
        )
        source += "os.environ['OMP_NUM_THREADS'] = '1'\nimport torch\n"
        source += "assert torch.get_num_threads() == 1\n"
        assert checked(source).ending == Ending("finished", 0)

    def test_readings_are_numbers_as_before(self, here):
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
assert 0.01 <= time.perf_counter() - b < 5 and time.monotonic_ns() - n >= 10_000_000
"""
        check = checked(source)
        assert check.ending == Ending("finished", 0)
        assert check.models == 0

    def test_torch_is_not_confused(self, here):
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
        check = checked(source)
        assert check.ending == Ending("finished", 0), check.ending
        assert check.breaches == ()

    def test_a_failure_is_told_with_its_line_and_what_was_seen_until_then(self, here, capfd):
        check = checked(CASES_SOURCE + "raise ValueError('half way')\n")
        assert check.ending.kind == "raised"
        assert check.ending.says == "ValueError: half way"
        assert check.ending.place == Place("script.py", len(CASES_SOURCE.splitlines()) + 1)
        assert gates(check) == ["constant-inputs"]
        err = capfd.readouterr().err
        assert "ValueError: half way" in err
        assert "runpy" not in err
        assert "script.py failed with exit status 1" in str(check)

    def test_a_syntax_error(self, here):
        check = checked("import torch\ndef f(:\n")
        assert check.ending.kind == "raised"
        assert check.ending.says.startswith("SyntaxError")
        assert check.ending.place == Place("script.py", 2)

    @pytest.mark.parametrize(
        ("line", "code"),
        [("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1), ("os._exit(4)", 4)],
    )
    def test_a_script_that_ends_itself(self, here, line, code):
        check = checked(f"import os, sys\n{line}\n")
        assert check.ending == Ending("exited", code)

    def test_a_script_that_dies(self, here):
        check = checked("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
        assert check.ending == Ending("killed", 139, "SIGSEGV")
        assert "what had been seen is lost" in str(check)

    def test_one_that_never_ends_is_ended_and_tells_what_was_seen(self, here):
        stubborn = "while True:\n    try: time.sleep(0)\n    except BaseException: pass\n"
        check = checked(CASES_SOURCE + stubborn, timeout_s=20)
        assert check.ending == Ending("timeout")
        assert gates(check) == ["constant-inputs"]

    def test_an_interrupt_ends_it_and_tells_what_was_seen(self, here):
        (here / "script.py").write_text(
            CASES_SOURCE + "print('ready', flush=True)\ntime.sleep(60)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "precisionbench", "check", "script.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for line in process.stderr:
            if "ready" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "was interrupted" in out
        assert "constant-inputs" in out

    def test_nothing_is_left_behind_when_we_are_killed(self, here):
        (here / "script.py").write_text(
            "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "precisionbench", "check", "script.py"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        child = int(process.stderr.readline())
        process.kill()
        process.communicate()
        for _ in range(200):
            if not Path(f"/proc/{child}").exists():
                break
            time.sleep(0.05)
        assert not Path(f"/proc/{child}").exists()

    def test_processes_and_threads_of_its_own(self, here):
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
        assert gates(checked(source)) == ["constant-inputs"]

    def test_no_such_script(self, here):
        with pytest.raises(SpecError, match="there is no script 'none.py'"):
            pb.check("none.py")
        with pytest.raises(SpecError, match="there is no script"):
            pb.check(str(here))
        with pytest.raises(SpecError, match="give a list"):
            pb.check("none.py", "--batch 8")


CASES_SOURCE = CLEAN.replace("torch.rand(", "torch.zeros(")


class TestReading:
    """What the text alone says, where it could not be run."""

    SCRIPT = """
import time
import torch
import apex.amp as amp

x = torch.rand(8, 3, 224, 224).to("cuda")
for level in ["O1", "O0"]:
    model = amp.initialize(build().cuda(), opt_level=level)
    tic = time.perf_counter()
    for _ in range(30):
        model(x)
    toc = time.perf_counter()
    print(toc - tic)
"""

    def test_both_errors_are_suspected_without_gpu_and_apex(self, here):
        check = checked(self.SCRIPT)
        assert check.ending.kind == "raised"
        assert [(b.number, b.status) for b in check.breaches] == [
            ("C15", Status.SUSPECTED),
            ("C1", Status.SUSPECTED),
        ]
        assert check.broken == ()
        assert [b.sights[0].place.line for b in check.breaches] == [8, 12]
        assert str(check).count("read in the script's text, not run") == 2

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("    toc", "    torch.cuda.synchronize()\n    toc"),
            ("    print(toc - tic)", "    while toc - tic < 1: pass"),
        ],
    )
    def test_a_wait_or_a_condition_is_no_missing_synchronize(self, old, new):
        assert read(self.SCRIPT, "s.py").unsynchronized
        assert not read(self.SCRIPT.replace(old, new), "s.py").unsynchronized

    def test_names_are_followed_to_what_was_imported(self):
        other = self.SCRIPT.replace("import time", "from time import perf_counter as now")
        other = other.replace("time.perf_counter()", "now()")
        other = other.replace("import apex.amp as amp", "from apex import amp")
        text = read(
            other.replace("toc = now()\n    print(toc - tic)", "print(now() - tic)"), "s.py"
        )
        assert len(text.unsynchronized) == len(text.patches) == 1
        foreign = read(self.SCRIPT.replace("import apex.amp as amp", "import mine as amp"), "s.py")
        assert not foreign.patches

    @pytest.mark.parametrize(
        ("levels", "leaks"),
        [("'O1', 'O0'", True), ("'O3', 'O1'", False), ("'O3', 'O2'", False)],
    )
    def test_o1_before_another_level_leaks(self, levels, leaks):
        source = self.SCRIPT.replace('"O1", "O0"', levels)
        assert bool(read(source, "s.py").patches) is leaks

    def test_o1_without_a_loop(self):
        once = self.SCRIPT.replace("for level in", "if").replace("opt_level=level", "'O1'")
        once = once.replace(", 'O1')", ", opt_level='O1')")
        assert not read(once, "s.py").patches
        timed = once + "tic = time.time()\nother(x)\nprint(time.time() - tic)\n"
        assert read(timed, "s.py").patches

    def test_an_assignment_to_torch_that_is_put_back_is_no_leak(self):
        patch = (
            "import torch.nn.functional as F\nimport time\nF.conv2d = mine\nprint(time.time())\n"
        )
        (found,) = read(patch, "s.py").patches
        assert found.says == "torch.nn.functional.conv2d is replaced and not put back"
        assert not read(patch + "F.conv2d = own\n", "s.py").patches

    @pytest.mark.parametrize("source", ["def f(:", "\0", "", "("])
    def test_what_is_no_python_says_nothing(self, source):
        assert read(source, "s.py") == Text()

    def test_a_cpu_script_is_not_suspected(self, here):
        assert not read(self.SCRIPT.replace("cuda", "cpu"), "s.py").uses_cuda


def observed(model: Model, calls: Calls, read_s: float = 1.0, **region) -> Scene:
    """A model that was timed once, on a GPU."""
    place = Place("s.py", 3)
    readings = tuple(Reading("time.time", place, at, False) for at in (0.0, read_s))
    seen = Observations(
        (model,),
        readings,
        (Segment(), Segment((calls,)), Segment()),
        (Timing(0, 1, read_s, read_s, place),),
        Ending("finished", 0),
        gpu="GPU",
    )
    return Scene(seen, regions(seen, frozenset(), "s.py"), Text())


PLACE = Place("s.py", 5)
GPU_MODEL = Model("Net", PLACE, {"float32": 10}, "cuda:0", tf32=("convolutions",))
GPU_CALLS = Calls(0, PLACE, 30, 0.9, 0, 0.0, False, False, False, ("float32",), ("float32",))


class TestTf32:
    """By torch's settings and the device's capability; on a real GPU in test_gpu_check.py."""

    def test_convolutions_in_tf32_are_told(self):
        (breach,) = breaches(observed(GPU_MODEL, GPU_CALLS))
        assert (breach.gate, breach.status) == ("tf32-baseline", Status.CONFIRMED)
        assert breach.sights[0].says == "Net: convolutions ran in TF32"

    def test_whoever_asks_for_it_may_know(self):
        import attrs

        (breach,) = breaches(observed(attrs.evolve(GPU_MODEL, tf32_asked=True), GPU_CALLS))
        assert breach.status is Status.SUSPECTED

    @pytest.mark.parametrize(
        ("model", "calls"),
        [
            ({"tf32": ()}, {}),
            ({"parameters": {"float16": 10}}, {"inputs": ("float16",), "outputs": ("float16",)}),
            ({}, {"autocast": True, "outputs": ("float16",)}),
        ],
    )
    def test_what_runs_in_ieee_float32_or_in_half_is_not(self, model, calls):
        import attrs

        scene = observed(attrs.evolve(GPU_MODEL, **model), attrs.evolve(GPU_CALLS, **calls))
        assert breaches(scene) == ()


def timed(*bounds: tuple[int, int], clock: str = "time.perf_counter", readings: int = 4):
    """What was timed, where a model was called between any two readings."""
    segment = Segment((GPU_CALLS,))
    seen = Observations(
        (GPU_MODEL,),
        tuple(Reading(clock, Place("s.py", at), float(at), None) for at in range(readings)),
        (segment,) * (readings + 1),
        tuple(Timing(a, b, b - a, None, Place("s.py", 100 + b)) for a, b in bounds),
        Ending("finished", 0),
    )
    found = regions(seen, frozenset({101}), "s.py")
    return [(region.start.line, region.end.line) for region in found]


def test_a_timing_that_holds_another_is_no_result():
    assert timed((1, 2), (0, 3), (2, 3)) == [(1, 2), (2, 3)]


def test_a_difference_that_is_only_compared_is_no_result():
    assert timed((0, 1), (2, 3)) == [(2, 3)]


def test_readings_that_were_never_subtracted_are_neighbours_unless_they_tell_the_date():
    assert timed() == [(0, 1), (1, 2), (2, 3)]
    assert timed(clock="time.time") == []
    assert timed((0, 3)) == [(0, 3)]
    assert timed((1, 2), readings=6) == [(1, 2), (3, 4), (4, 5)]


def test_too_many_readings_are_told(here):
    source = CLEAN.replace(
        "for _ in range(40):", "for _ in range(21000): time.time()\n        for _ in [1]:"
    )
    check = checked(source)
    assert check.ending.is_whole
    assert any("readings of clocks were too many" in note for note in check.notes)


def test_a_model_that_cannot_be_looked_at_does_not_feel_it(here):
    source = CLEAN.replace(
        "def net",
        "class Odd(nn.Module):\n"
        "    def parameters(self, *_):\n        raise KeyError('odd')\n"
        "    def forward(self, x):\n        return x\n\ndef net",
    )
    check = checked(source.replace("output = model(x)", "output = Odd()(model(x))"))
    assert check.ending == Ending("finished", 0)
    assert any("could not be looked at (KeyError: 'odd')" in note for note in check.notes)


def test_every_gate_is_explained():
    page = (ROOT / PAGE).read_text()
    for gate in GATES:
        assert f"\n## {gate.name}\n" in page


def test_the_command_line_gives_json_and_exit_codes(here, capfd):
    import json

    from click.testing import CliRunner

    from precisionbench.cli import main

    (here / "bad.py").write_text(CASES_SOURCE)
    done = CliRunner().invoke(main, ["check", "--json", "bad.py"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["format"] == "precisionbench.check"
    assert document["breaches"][0]["gate"] == "constant-inputs"
    assert CliRunner().invoke(main, ["check", "none.py"]).exit_code == 2
    (here / "options.py").write_text("import sys\nprint(sys.argv)\n")
    done = CliRunner().invoke(main, ["check", "options.py", "--help", "-x", "--json", "--", "b"])
    assert done.exit_code == 3
    assert "['options.py', '--help', '-x', '--json', '--', 'b']" in capfd.readouterr().err
    (here / "clean.py").write_text(CLEAN)
    assert CliRunner().invoke(main, ["check", "clean.py"]).exit_code == 0
    done = CliRunner().invoke(main, ["check", "--help"])
    assert "my_benchmark.py" in done.stdout
