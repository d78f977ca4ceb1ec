"""What a check observes of a device that works asynchronously: pending work, copies and waits."""

from __future__ import annotations

import pytest

from precisionbench.scriptcheck.events import Place
from scripts import confirmed

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
WAITING_LOOP = """
from time import sleep
t0 = now()
while now() - t0 < 0.05:
    model(x)
    sleep(0.005)
synchronize()
start = now()"""


@pytest.fixture
def check_simulated(check_script):
    """Checks a script on the simulated device."""

    def check(source: str, script: str = "script.py"):
        return check_script(source, script, device="simulated")

    return check


def test_a_synchronized_script_has_no_violations(check_simulated):
    check = check_simulated(SYNCHRONIZED)
    assert check.breaches == ()
    assert check.timed[0].device_s == pytest.approx(0.1)


def test_the_error_of_an_unsynchronized_timing_is_measured(check_simulated):
    # So much work that the host is done long before the device, on a busy machine, too.
    unsynchronized = SYNCHRONIZED.replace("synchronize()\n", "\n").replace("0.005", "0.5")
    (violation,) = check_simulated(unsynchronized).broken
    assert violation.gate == "missing-synchronize"
    early, was_read, really, share, pending = violation.evidence
    assert early.value == 1
    assert was_read.value < really.value / 2
    assert really.value == pytest.approx(10.0)
    assert share.value == pytest.approx(was_read.value / really.value)
    assert pending.value == pytest.approx(11.5)  # the warm-up included
    place = violation.sights[0].place
    assert (place.file, place.line) == ("script.py", 19)
    assert "started at line 15" in violation.sights[0].says


def test_a_loop_until_a_time_is_no_timing(check_simulated):
    source = SYNCHRONIZED.replace("start = now()", WAITING_LOOP)
    assert check_simulated(source).breaches == ()


def test_a_loop_until_a_time_is_no_timing_in_a_script_given_by_its_absolute_path(
    check_simulated, tmp_path
):
    source = SYNCHRONIZED.replace("start = now()", WAITING_LOOP)
    assert check_simulated(source, str(tmp_path / "s.py")).breaches == ()


@pytest.mark.slow
def test_a_loop_until_a_time_in_a_module_of_the_author_is_no_timing(check_simulated, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import time\n\ndef warm_up(function, seconds=0.05):\n"
        "    deadline = time.perf_counter() + seconds\n"
        "    while time.perf_counter() < deadline:\n        function()\n"
    )
    source = SYNCHRONIZED.replace("import torch\n", "import torch\nfrom mine import warm_up\n", 1)
    source = source.replace(
        "synchronize()\nstart", "warm_up(lambda: model(x))\nsynchronize()\nstart"
    )
    assert check_simulated(source).breaches == ()


def test_timeit_is_observed(check_simulated):
    source = SYNCHRONIZED.partition("start = now()")[0]
    source += "import timeit\nprint(timeit.timeit(lambda: model(x), number=20))\n"
    (violation,) = check_simulated(source).broken
    assert violation.gate == "missing-synchronize"
    assert violation.sights[0].place == Place("script.py", 16)


def test_readings_in_a_list_are_observed(check_simulated):
    source = (
        SYNCHRONIZED.partition("start = now()")[0]
        + """
import numpy
readings = [now()]
for _ in range(20):
    model(x)
    readings.append(now())
print(numpy.diff(readings))
"""
    )
    assert confirmed(check_simulated(source)) == ["missing-synchronize"]


@pytest.mark.parametrize(
    "wait",
    [
        "def wait():\n    synchronize()\nwait()",
        "class Stream:\n    def synchronize(self):\n        synchronize()\nStream().synchronize()",
        "synchronize() if x.numel() else None",
    ],
)
def test_a_wait_is_found_wherever_it_is(check_simulated, wait):
    before, after = SYNCHRONIZED.rsplit("synchronize()\n", 1)
    assert check_simulated(f"{before}{wait}\n{after}").breaches == ()


def test_work_left_over_is_named_where_the_figure_is_nearly_right(check_simulated):
    source = SYNCHRONIZED.replace("stop = now()", "launch(0.0005)\nstop = now()")
    (violation,) = check_simulated(source).broken
    assert violation.gate == "missing-synchronize"
    assert "was read with 500 µs of work pending" in violation.sights[0].says
    assert violation.evidence[-1].name == "work still pending"
    assert violation.evidence[-1].value == pytest.approx(0.0005)


def test_earlier_work_in_a_timing_is_named(check_simulated):
    source = SYNCHRONIZED.replace("synchronize()\nstart", "launch(0.2)\nstart")
    (violation,) = check_simulated(source).broken
    assert violation.gate == "missing-synchronize"
    assert violation.sights[0].place == Place("script.py", 15)
    assert "started with 220 ms of earlier work pending" in violation.sights[0].says
    assert violation.evidence[0].value == pytest.approx(0.215)


@pytest.mark.slow  # runs scripts for seconds
def test_host_work_counts_only_while_the_device_is_idle(check_simulated):
    overlapped = SYNCHRONIZED.replace("20):\n    model(x)", "20):\n    model(x)\n    sleep(0.01)")
    overlapped = overlapped.replace("import torch\n", "import torch\nfrom time import sleep\n", 1)
    check = check_simulated(overlapped.replace("0.005", "0.1"))
    assert check.breaches == ()
    assert check.timed[0].other_work[0].value == 0
    idle = overlapped.replace("sleep(0.01)", "synchronize()\n    sleep(0.01)")
    (violation,) = check_simulated(idle).broken
    assert violation.gate == "mostly-other-work"
    assert violation.evidence[0].name == "time.sleep() at script.py:20"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("model(x).sum().item()", ".item()"),
        ("float(model(x).sum())", "float()"),
        ("model(host.to('cpu', copy=True))", ".to('cuda')"),
    ],
)
def test_copies_and_waits_in_the_loop_are_reported_with_their_line(check_simulated, line, kind):
    source = SYNCHRONIZED.replace("20):\n    model(x)", f"20):\n    {line}")
    source = source.replace(
        "start = now()", "host = torch.rand(8)\nhost.on_host = True\nstart = now()"
    )
    (violation,) = check_simulated(source).broken
    assert violation.gate == "host-copies"
    assert violation.evidence[0].name == f"{kind} at script.py:19"
    assert violation.evidence[0].value == 20


@pytest.mark.workers_counted
def test_uploads_of_data_that_is_loaded_in_the_timing_are_no_problem(check_simulated):
    source = SYNCHRONIZED.replace(
        "for _ in range(20):\n    model(x)",
        "for x in torch.utils.data.DataLoader(torch.rand(20, 8)):\n    x.on_host = True\n"
        "    model(x.to('cpu', copy=True))",
    )
    source = source.replace("torch.rand(8)", "torch.rand(1, 8)")
    assert check_simulated(source).breaches == ()


def test_a_wait_inside_the_model_is_reported_there(check_simulated):
    hidden = SYNCHRONIZED.replace("return x + 1", "return x + x.max().item()")
    (violation,) = check_simulated(hidden).broken
    assert violation.sights[0].says == ".item() inside the model"
    assert violation.sights[0].place.line == 9


def test_fetching_once_at_the_end_is_no_violation(check_simulated):
    source = SYNCHRONIZED.replace("synchronize()\nstop", "model(x).cpu()\nsynchronize()\nstop")
    assert check_simulated(source).breaches == ()
