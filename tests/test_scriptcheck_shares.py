"""How much of a timing is the model, and the hooks that time the rest."""

from __future__ import annotations

import attrs
import pytest

from precisionbench.scriptcheck.events import Calls, HostWork, Place, Span
from precisionbench.scriptcheck.shares import shares
from precisionbench.scriptcheck.timed_regions import TimedRegion
from scripts import CLEAN, confirmed

PLACE, LINE = Place("s.py", 9), Place("s.py", 7)
CALLS = Calls(0, LINE, 20, 0.2, 0, 0.0, False, False, False, ("float32",), ("float32",))
WORK = (HostWork("torch.tensor()", LINE, 20, 0.6), HostWork("DataLoader", LINE, 20, 0.15))
SPAN = Span((CALLS,), host_work=WORK)
REGION = TimedRegion("time.time", LINE, PLACE, 1.0, None, False, (SPAN,), Span())


def test_calls_named_work_and_other_code_add_up_to_the_time_read():
    again = attrs.evolve(REGION, spans=(attrs.evolve(SPAN),))
    found = shares([REGION, again])
    assert found.model == pytest.approx(0.2)
    assert [(part.kind, pytest.approx(part.share)) for part in found.parts] == [
        ("torch.tensor()", 0.6),
        ("DataLoader", 0.15),
        ("operations and other code", 0.05),
    ]
    assert found.named == pytest.approx(0.6)  # data loading may be what is timed


def test_on_a_device_only_the_named_work_has_a_share():
    found = shares([attrs.evolve(REGION, on_device=True)])
    assert found.model is None
    assert [part.kind for part in found.parts] == ["torch.tensor()", "DataLoader"]


@pytest.mark.parametrize(
    "change",
    [
        {"clock": "time.process_time"},
        {"spans": (attrs.evolve(SPAN, backward_count=1),)},
        {"spans": (attrs.evolve(SPAN, calls=(attrs.evolve(CALLS, total_s=1.9),)),)},
        {"spans": (attrs.evolve(SPAN, calls=(CALLS, attrs.evolve(CALLS, error="E: no"))),)},
        {"read_s": 0.0},
    ],
    ids=["time of the processor", "training", "calls at the same time", "errors", "nothing read"],
)
def test_shares_that_would_be_wrong_are_unknown(change):
    assert shares([attrs.evolve(REGION, **change)]) is None


def test_timings_that_overlap_have_no_shares():
    assert shares([REGION, REGION]) is None


MOSTLY = {
    "lists": "x = torch.tensor(big.tolist())[:8]",
    "pauses": "time.sleep(0.02)",
    "new inputs": "torch.rand(1000, 1000)",
    "arrays": "torch.tensor([big.numpy()])",
}


@pytest.mark.slow  # scripts that run for seconds
@pytest.mark.parametrize("line", MOSTLY.values(), ids=MOSTLY)
def test_a_timing_that_is_mostly_something_else_is_a_problem(check_script, line):
    source = CLEAN.replace("results = []", "results, big = [], torch.rand(16, 3, 48, 48)")
    check = check_script(source.replace("range(40):", f"range(40):\n            {line}"))
    assert confirmed(check) == ["mostly-other-work"]
    (violation,) = check.breaches
    assert violation.evidence[0].name == "model calls"
    assert violation.evidence[0].value == check.timed[0].model_share < 0.5
    assert violation.evidence[1].value > 0.4
    assert violation.evidence[1].name.endswith(" at script.py:29")


def test_other_code_is_a_note_with_its_share(check_script):
    line = "range(40):\n            sum(range(400_000))"
    check = check_script(CLEAN.replace("range(40):", line))
    assert check.breaches == ()
    (note,) = (note for note in check.notes if "model calls" in note)
    assert "other code between calls" in note


def test_a_model_alone_is_nearly_all_of_its_timing(check_script):
    check = check_script(CLEAN)
    assert check.timed[0].model_share > 0.8
    assert not any("model calls" in note for note in check.notes)


@pytest.mark.slow  # compiles
@pytest.mark.uncounted
def test_hooked_functions_compile_script_export_and_pickle_as_before(check_script):
    source = """
import copy, pickle, torch

class Net(torch.nn.Module):
    def forward(self, x):
        return x + torch.rand(8) + torch.tensor([1.0]) + torch.as_tensor(2.0)

net, x = Net(), torch.rand(4, 8)
torch.compile(net, backend="eager", fullgraph=True)(x)
torch.jit.script(net)(x)
torch.export.export(net, (x,))
assert pickle.loads(pickle.dumps(torch.tensor)) is torch.tensor
copy.deepcopy(net)
with torch.device("meta"):
    made = torch.rand(2), torch.randint(0, 2, (3,)), torch.tensor([1.0]), torch.as_tensor(2.0)
assert all(tensor.is_meta for tensor in made)
"""
    check = check_script(source)
    assert (check.ending.kind, check.ending.says) == ("finished", "")


RECOMPILED = """
import time, torch

class Scaled(torch.nn.Linear):
    def forward(self, x, factor):
        return super().forward(x) * factor

net, x = Scaled(64, 64).eval(), torch.rand(8, 64)
compiled = torch.compile(net, backend="eager", dynamic=False)
with torch.inference_mode():
    compiled(x, 0)
    start = time.perf_counter()
    for i in range(1, 7):
        compiled(x, i)
    print(time.perf_counter() - start)
"""


@pytest.mark.slow  # compiles
@pytest.mark.uncounted
def test_compilation_in_the_timed_calls_is_a_problem_for_all_its_causes(check_script):
    check = check_script(RECOMPILED)
    assert confirmed(check) == ["recompilation"]
    assert check.breaches[0].evidence[0].value == 6
    by_shape = RECOMPILED.replace("compiled(x, i)", "compiled(torch.rand(8 + i, 64), 0)")
    check = check_script(by_shape)
    assert confirmed(check) == ["new-shapes"]
    assert check.breaches[0].evidence[-1].value == 6
