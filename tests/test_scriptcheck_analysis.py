"""Static analysis of a script's source, and its timed regions."""

from __future__ import annotations

import pytest

from precisionbench.diagnosis.findings import FindingStatus
from precisionbench.scriptcheck.events import (
    Calls,
    Ending,
    Model,
    Observations,
    Place,
    Reading,
    Span,
    Timing,
)
from precisionbench.scriptcheck.static_analysis import StaticFindings, analyze
from precisionbench.scriptcheck.timed_regions import SourceLines, find_regions

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


@pytest.mark.workers_counted
def test_both_errors_are_suspected_without_gpu_and_apex(check_script):
    check = check_script(SCRIPT)
    assert check.ending.kind == "raised"
    assert [(v.number, v.status) for v in check.breaches] == [
        ("C15", FindingStatus.SUSPECTED),
        ("C1", FindingStatus.SUSPECTED),
    ]
    assert check.broken == ()
    assert [v.sights[0].place.line for v in check.breaches] == [8, 12]
    assert " ".join(str(check).split()).count("from the script's source, not from this run") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    toc", "    torch.cuda.synchronize()\n    toc"),
        ("    print(toc - tic)", "    while toc - tic < 1: pass"),
    ],
)
def test_a_wait_or_a_comparison_is_no_missing_synchronize(old, new):
    assert analyze(SCRIPT, "s.py").unsynchronized
    assert not analyze(SCRIPT.replace(old, new), "s.py").unsynchronized


WAITS = {
    "in a helper": ("x = torch", "def wait():\n    torch.cuda.synchronize()\n\nx = torch"),
    "in another branch": ("    toc", "    if other:\n        stream.synchronize()\n    toc"),
    "by an event": ("x = torch", "event = torch.cuda.Event()\nx = torch"),
    "by an unknown module": ("import torch\n", "import torch\nfrom mine import helper\n"),
    "by a module of the same package": ("import torch\n", "import torch\nfrom . import other\n"),
    "by a name in a string": ("x = torch", "wait = getattr(torch.cuda, 'synchronize')\nx = torch"),
    "by the environment": ("x = torch", "os.environ['CUDA_LAUNCH_BLOCKING'] = '1'\nx = torch"),
    "by printing": ("        model(x)", "        print(model(x))"),
    "by formatting": ("        model(x)", "        text = f'{model(x)}'"),
    "by a list": ("        model(x)", "        model(x).tolist()"),
    "by a condition": ("        model(x)", "        if model(x).mean() > 0: pass"),
    "by a function that fetches": (
        "x = torch.rand(8, 3, 224, 224)",
        "def model(x):\n    return net(x).cpu()\n\nx = torch.rand(8, 3, 224, 224)",
    ),
    "by a copy": ("        model(x)", "        model(x).to('cpu')"),
}


@pytest.mark.parametrize("wait", WAITS)
def test_what_may_wait_rules_out_a_missing_synchronize_in_the_source(wait):
    old, new = WAITS[wait]
    assert old in SCRIPT
    assert not analyze(SCRIPT.replace(old, new), "s.py").unsynchronized


NO_WAITS = {
    "a constant is printed": ("        model(x)", "        model(x)\n        print('.')"),
    "a copy to the device": ("        model(x)", "        model(x.to('cuda'))"),
    "a fetch before": ("    tic", "    x.cpu()\n    tic"),
    "a well-known library": ("import torch\n", "import torch\nimport numpy\n"),
    "a function that does not fetch": (
        "x = torch.rand",
        "def model(x):\n    return net(x).relu()\n\nx = torch.rand",
    ),
}


@pytest.mark.parametrize("case", NO_WAITS)
def test_what_cannot_wait_does_not(case):
    old, new = NO_WAITS[case]
    assert old in SCRIPT
    assert analyze(SCRIPT.replace(old, new), "s.py").unsynchronized


def test_a_branch_without_a_gpu_is_not_its_path():
    body = SCRIPT.partition("x = ")[2].replace("\n", "\n    ")
    source = f"if use_gpu:\n    pass\nelse:\n    x = {body}"
    assert not analyze(f"{SCRIPT.partition('x = ')[0]}{source}", "s.py").unsynchronized


@pytest.mark.parametrize(
    ("line", "averages"),
    [
        ("print(sum(times) / len(times))", True),
        ("total_time += toc - tic", True),
        ("print(np.mean(latencies))", True),
        ("ts.append(toc - tic); print(np.mean(ts))", True),
        ("d = 1e3 * (toc - tic); ts.append(d); print(sum(ts) / 3)", True),
        ("ts.append(loss); print(np.mean(ts))", False),
        ("print(np.mean(times[3:]))", False),
        ("print(statistics.median(times), sum(times))", False),
        ("print(times)", False),
        ("print(sum(t for t in times if t < 1))", False),
        ("model(x).sum()", False),
    ],
)
def test_timings_are_averaged_only_where_nothing_can_leave_the_first_out(line, averages):
    assert analyze(SCRIPT + line, "s.py").claims.averages_all is averages


def test_names_are_resolved_to_what_was_imported():
    other = SCRIPT.replace("import time", "from time import perf_counter as now")
    other = other.replace("time.perf_counter()", "now()")
    other = other.replace("import apex.amp as amp", "from apex import amp")
    other = other.replace("toc = now()\n    print(toc - tic)", "print(now() - tic)")
    found = analyze(other, "s.py")
    assert len(found.unsynchronized) == len(found.patches) == 1
    foreign = analyze(SCRIPT.replace("import apex.amp as amp", "import mine as amp"), "s.py")
    assert not foreign.patches


@pytest.mark.parametrize(
    ("levels", "leaks"),
    [("'O1', 'O0'", True), ("'O3', 'O1'", False), ("'O3', 'O2'", False)],
)
def test_o1_before_another_level_leaks(levels, leaks):
    source = SCRIPT.replace('"O1", "O0"', levels)
    assert bool(analyze(source, "s.py").patches) is leaks


def test_o1_without_a_loop_leaks_if_another_model_is_timed_after_it():
    once = SCRIPT.replace("for level in", "if").replace("opt_level=level", "'O1'")
    once = once.replace(", 'O1')", ", opt_level='O1')")
    assert not analyze(once, "s.py").patches
    timed = once + "tic = time.time()\nother(x)\nprint(time.time() - tic)\n"
    assert analyze(timed, "s.py").patches


def test_an_assignment_to_torch_that_is_undone_is_no_leak():
    patch = "import torch.nn.functional as F\nimport time\nF.conv2d = mine\nprint(time.time())\n"
    (found,) = analyze(patch, "s.py").patches
    assert found.description == "torch.nn.functional.conv2d is replaced and not put back"
    assert not analyze(patch + "F.conv2d = own\n", "s.py").patches


@pytest.mark.parametrize("source", ["def f(:", "\0", "", "("])
def test_invalid_python_has_no_findings(source):
    assert analyze(source, "s.py") == StaticFindings()


def test_a_cpu_script_does_not_use_cuda():
    on_cpu = SCRIPT.replace('"cuda"', '"cpu"').replace(".cuda()", "")
    assert not analyze(on_cpu, "s.py").uses_cuda
    asks = "print('cuda is there:', torch.cuda.is_available())\n"
    assert not analyze(on_cpu + asks, "s.py").uses_cuda
    assert analyze(on_cpu + "x.cuda()", "s.py").uses_cuda


PLACE = Place("s.py", 5)
CALLS = Calls(0, PLACE, 30, 0.9, 0, 0.0, False, False, False, ("float32",), ("float32",))


def regions(
    *timings: tuple[int, int],
    clock: str = "time.perf_counter",
    readings: int = 4,
    lines: tuple[int, ...] = (),
    place: Place | None = None,
):
    """Start and end lines of the regions of a script that calls a model between all readings."""
    lines = lines or tuple(range(readings))
    observations = Observations(
        (Model("Net", PLACE, {"float32": 10}, "cuda:0"),),
        tuple(
            Reading(clock, Place("s.py", line), float(at), None) for at, line in enumerate(lines)
        ),
        (Span((CALLS,)),) * (len(lines) + 1),
        tuple(Timing(a, b, b - a, None, place or Place("s.py", 100 + b)) for a, b in timings),
        Ending("finished", 0),
    )
    found = find_regions(observations, SourceLines(compared=frozenset({Place("s.py", 101)})))
    return [(region.start.line, region.end.line) for region in found]


def test_a_timing_that_contains_another_is_no_region():
    assert regions((1, 2), (0, 3), (2, 3)) == [(1, 2), (2, 3)]


def test_a_difference_that_is_only_compared_is_no_region():
    assert regions((0, 1), (2, 3)) == [(2, 3)]


def test_readings_that_are_only_compared_are_known():
    source = """
deadline = time.perf_counter() + 1
while time.perf_counter() < deadline:
    elapsed = time.perf_counter() - start
    if elapsed > 2:
        break
result = time.perf_counter() - start
print(result > 2, result)
now = time.perf_counter()
print(now >= deadline)
"""
    assert analyze(f"import time{source}", "s.py").compared_lines == {3, 4, 9}


def test_the_last_of_several_differences_from_one_reading_is_the_result():
    assert regions((0, 1), (0, 2), (0, 3), place=Place("s.py", 90)) == [(0, 3)]
    assert regions((1, 2), (2, 3), (1, 3)) == [(1, 2), (2, 3)]


def test_what_lies_between_two_timings_is_no_timing():
    assert regions(lines=(1, 2, 1, 2, 1, 2)) == [(1, 2)] * 3
    assert regions(lines=(1, 1, 1)) == [(1, 1)] * 2


def test_readings_that_were_never_subtracted_are_paired_unless_they_are_dates():
    assert regions() == [(0, 1), (1, 2), (2, 3)]
    assert regions(clock="time.time") == []
    assert regions((0, 3)) == [(0, 3)]
    assert regions((1, 2), readings=6) == [(1, 2), (3, 4), (4, 5)]
