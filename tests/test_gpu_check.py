"""`precisionbench check` on a real GPU and with the real Apex."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import precisionbench as pb
from precisionbench.diagnosis.findings import FindingStatus
from precisionbench.scriptcheck.events import Ending
from scripts import confirmed
from timing_styles import STYLES

pytestmark = pytest.mark.gpu

# The structure of the founding script: Apex levels in one process, then plain float32; a half
# batch for Apex; no synchronize. IEEE float32, so that TF32 is no further violation.
FOUNDING = """
import time
import torch
import apex.amp as amp
from torch import nn

torch.backends.cudnn.allow_tf32 = False

def build():
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()] * 8
    return nn.Sequential(*layers).eval().to("cuda")

def timed(name, model, batch):
    with torch.no_grad():
        for _ in range(3):
            model(batch)
        tic = time.perf_counter()
        for _ in range(30):
            model(batch)
        toc = time.perf_counter()
    print(name, toc - tic)

full = torch.rand([64, 64, 56, 56]).to("cuda")
for opt_level in ["O3", "O2", "O1", "O0"]:
    timed(opt_level, amp.initialize(build(), opt_level=opt_level), full.half())
timed("Float32", build(), full)
"""
PLAIN = FOUNDING.replace("import apex.amp as amp\n", "").replace(
    'for opt_level in ["O3", "O2", "O1", "O0"]:\n'
    "    timed(opt_level, amp.initialize(build(), opt_level=opt_level), full.half())\n",
    "",
)
SYNCHRONIZED = PLAIN.replace(
    "        toc", "        torch.cuda.synchronize()\n        toc"
).replace("        tic", "        torch.cuda.synchronize()\n        tic")
EVENTS = (
    PLAIN.replace(
        "tic = time.perf_counter()",
        "tic, toc = (torch.cuda.Event(enable_timing=True) for _ in 'ab')\n        tic.record()",
    )
    .replace("toc = time.perf_counter()", "toc.record()\n        toc.synchronize()")
    .replace("toc - tic", "tic.elapsed_time(toc)")
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(source: str) -> pb.Check:
    Path("script.py").write_text(source)
    check = pb.check("script.py", timeout_s=300)
    print(check)
    return check


@pytest.mark.apex
def test_both_errors_of_the_founding_script_with_the_real_apex(here):
    # Batches so large that the device is behind the host in half, too, and on a busy host.
    check = checked(FOUNDING.replace("torch.rand([64,", "torch.rand([512,"))
    assert check.ending == Ending("finished", 0)
    assert confirmed(check) == ["leaked-patches", "missing-synchronize"]
    assert [violation.gate for violation in check.breaches[2:]] == ["half-into-float32"]  # O0, too
    patches, synchronize = check.breaches[:2]
    assert [number.value for number in patches.evidence[:1]] == [2]  # O0 and Float32
    assert patches.evidence[1].value > 50
    assert "its parameters are float32 and its output float16" in patches.sights[-1].says
    assert synchronize.evidence[0].value == 5


@pytest.mark.apex
def test_o0_with_half_inputs_is_reported(here):
    source = FOUNDING.replace('["O3", "O2", "O1", "O0"]', '["O0"]')
    assert confirmed(checked(source)) == ["missing-synchronize", "half-into-float32"]


@pytest.mark.apex
def test_o1_as_the_last_level_is_no_leak(here):
    source = FOUNDING.replace('["O3", "O2", "O1", "O0"]', '["O3", "O2", "O1"]')
    source = source.replace('timed("Float32", build(), full)', "")
    assert "leaked-patches" not in {violation.gate for violation in checked(source).breaches}


def test_the_error_of_a_missing_synchronize_is_measured(here):
    check = checked(PLAIN)
    assert confirmed(check) == ["missing-synchronize"]
    early, was_read, really, share, pending = check.breaches[0].evidence
    assert early.value == 1
    assert was_read.value < really.value
    assert share.value < 0.97
    assert pending.value == pytest.approx(really.value - was_read.value, rel=0.15, abs=2e-4)
    true = checked(SYNCHRONIZED).timed[0]
    assert true.device_s == pytest.approx(true.read_s, rel=0.02)
    assert really.value == pytest.approx(true.device_s, rel=0.15)


@pytest.mark.parametrize("source", [SYNCHRONIZED, EVENTS], ids=["synchronize", "events"])
def test_a_synchronized_script_has_no_violations(here, source):
    check = checked(source)
    assert check.breaches == ()
    assert check.gpu == torch.cuda.get_device_name()
    assert check.timed[0].calls == 30


def test_tf32_is_detected_and_only_suspected_if_requested(here):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    by_default = SYNCHRONIZED.replace("torch.backends.cudnn.allow_tf32 = False\n", "")
    assert confirmed(checked(by_default)) == ["tf32-baseline"]  # the row is called Float32
    unnamed = checked(by_default.replace('"Float32"', '"ResNet"'))
    assert unnamed.breaches == ()
    assert any("ran in TF32" in note for note in unnamed.notes)
    asked = by_default.replace(
        "def build", "torch.set_float32_matmul_precision('high')\n\ndef build"
    )
    (violation,) = checked(asked).breaches
    assert (violation.gate, violation.status) == ("tf32-baseline", FindingStatus.SUSPECTED)


def test_a_model_that_is_timed_with_and_without_tf32_is_in_tf32_only_once(here):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    loop = """model = build()
for name, allowed in [("TF32", True), ("Float32", False)]:
    torch.backends.cudnn.allow_tf32 = allowed
    timed(name, model, full)
"""
    check = checked(SYNCHRONIZED.replace('timed("Float32", build(), full)', loop))
    assert check.models == 2
    assert all(violation.evidence[0].value == 1 for violation in check.breaches)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_correct_scripts_of_all_styles_pass_on_a_gpu(here, style):
    check = checked(style.correct)
    assert check.ending.is_complete
    assert check.breaches == ()
    assert check.timed


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_the_fault_of_each_wrong_twin_is_found_on_a_gpu(here, style):
    assert [violation.gate for violation in checked(style.wrong).breaches] == [style.rule]


WAITING = {
    n: s
    for n, s in STYLES.items()
    if s.waits_by_helper and not re.search(r"trace|model\[:1\]", s.body)
}


@pytest.mark.parametrize("style", WAITING.values(), ids=WAITING)
def test_each_style_without_its_wait_lacks_a_synchronize(here, style):
    source = style.correct.replace("        torch.cuda.synchronize()\n", "        pass\n", 1)
    # So much work that the host is done long before the device.
    source = source.replace("nn.Conv2d(8, 8, 3)]", "nn.Conv2d(8, 8, 3), Slow()]")
    assert "missing-synchronize" in confirmed(checked(source))


WAITS = {
    "a helper": "def wait():\n    torch.cuda.synchronize()\nwait()",
    "with a device": "torch.cuda.synchronize(0)",
    "the stream": "torch.cuda.current_stream().synchronize()",
    "an event": "event = torch.cuda.Event(); event.record(); event.synchronize()",
    "item": "output.sum().item()",
    "cpu": "output[0, 0].cpu()",
    "tolist": "output[0, 0, 0].tolist()",
    "print": "print(output[0, 0, 0, :2])",
    "a comparison": "assert output.isfinite().all()",
}
HEAD = SYNCHRONIZED.partition("def timed")[0]


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_is_found_wherever_it_is(here, wait):
    body = """
model, batch = build(), torch.rand([64, 64, 56, 56], device="cuda")
with torch.no_grad():
    for _ in range(3):
        model(batch)
    torch.cuda.synchronize()
    tic = time.perf_counter()
    for _ in range(30):
        output = model(batch)
"""
    waiting = "".join(f"    {line}\n" for line in wait.splitlines())
    end = "    toc = time.perf_counter()\n    print(toc - tic)\n"
    assert checked(HEAD + body + waiting + end).breaches == ()
    assert confirmed(checked(HEAD + body + end)) == ["missing-synchronize"]


def test_a_small_rest_of_work_is_named_with_its_time(here):
    rest = "        torch.cuda._sleep(2_000_000)\n        toc"  # about a millisecond
    (violation,) = checked(SYNCHRONIZED.replace("        toc", rest)).broken
    assert violation.gate == "missing-synchronize"
    assert violation.evidence[-1].name == "work still pending"
    assert 2e-4 < violation.evidence[-1].value < 1e-2


def test_warm_up_that_is_still_running_is_named_at_the_start(here):
    source = SYNCHRONIZED.replace("        torch.cuda.synchronize()\n        tic", "        tic")
    (violation,) = checked(source).broken
    assert violation.gate == "missing-synchronize"
    assert "of earlier work pending" in violation.sights[0].says


def test_do_bench_is_no_problem(here):
    source = """
import torch
from triton.testing import do_bench

model = torch.nn.Linear(256, 256, device="cuda").eval()
x = torch.randn(64, 256, device="cuda")
with torch.inference_mode():
    print(do_bench(lambda: model(x)))
"""
    assert checked(source).breaches == ()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("model(batch).sum().item()", ".item()"),
        ("model(batch).cpu()", ".cpu()"),
        ("model(host.to('cuda'))", ".to('cuda')"),
        ("model(host.cuda())", ".to('cuda')"),
    ],
)
def test_copies_and_waits_in_the_loop_are_reported(here, line, kind):
    loop = "range(30):\n            "
    source = SYNCHRONIZED.replace(f"{loop}model(batch)", f"{loop}{line}")
    check = checked(source.replace("full = ", "host = torch.rand([64, 64, 56, 56])\nfull = "))
    # where the copies take most of the time, that is a problem of its own
    assert confirmed(check) in (["host-copies"], ["host-copies", "mostly-other-work"])
    assert check.breaches[0].evidence[0].name.startswith(f"{kind} at script.py:")


def test_an_overflow_in_half_is_reported(here):
    source = SYNCHRONIZED.replace(
        'timed("Float32", build(), full)', 'timed("Half", build().half(), 1e5 * full.half())'
    )
    assert confirmed(checked(source)) == ["non-finite-outputs"]


def test_observation_changes_the_measured_time_by_less_than_five_percent(here):
    Path("script.py").write_text(SYNCHRONIZED)
    alone = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    alone_s = float(alone.stdout.split()[-1])
    assert checked(SYNCHRONIZED).timed[0].read_s == pytest.approx(alone_s, rel=0.05)


FUNCTIONAL = """
import time
import torch
from torch.nn import functional as F
x, w = (torch.rand(4096, 4096, device="cuda") for _ in "xw")
graph = torch.cuda.CUDAGraph()
with torch.no_grad():
    for _ in range(3):
        F.linear(x, w)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        F.linear(x, w)
    graph.replay()
    torch.cuda.synchronize()
    tic = time.perf_counter()
    for _ in range(30):
        F.linear(x, w)
    torch.cuda.synchronize()
    toc = time.perf_counter()
    print(toc - tic)
"""


@pytest.mark.parametrize("work", ["F.linear(x, w)", "x @ w", "graph.replay()"])
def test_work_without_a_module_is_observed(here, work):
    loop = "range(30):\n        "
    source = FUNCTIONAL.replace(f"{loop}F.linear(x, w)", f"{loop}{work}")
    check = checked(source)
    assert check.breaches == ()
    assert check.timed[0].calls == 30
    early = source.replace("    torch.cuda.synchronize()\n    toc", "    toc")
    assert confirmed(checked(early)) == ["missing-synchronize"]


def test_do_bench_of_triton_passes(here):
    pytest.importorskip("triton")
    source = FUNCTIONAL.partition("    tic = ")[0]
    source += (
        "    from triton.testing import do_bench\n    print(do_bench(lambda: F.linear(x, w)))\n"
    )
    check = checked(source)
    assert check.breaches == ()
    assert check.timed[0].model == "linear"
    assert check.timed[0].calls > 5


def test_the_default_timer_of_torch_benchmark_passes(here):
    source = FUNCTIONAL.partition("    tic = ")[0]
    source += (
        "    from torch.utils import benchmark\n"
        "    timer = benchmark.Timer('F.linear(x, w)', globals=globals())\n"
        "    print(timer.blocked_autorange())\n"
    )
    check = checked(source)
    assert check.breaches == ()
    assert check.timed[0].model == "linear"
