"""Each validity rule has a script that violates it and a twin that does not."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

import precisionbench as pb
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
from precisionbench.scriptcheck.notes import notes
from precisionbench.scriptcheck.rules import RULES, RuleContext, violations
from precisionbench.scriptcheck.static_analysis import StaticFindings, analyze
from precisionbench.scriptcheck.timed_regions import find_regions
from precisionbench.scriptcheck.violations import PAGE
from scripts import CLEAN, confirmed

ROOT = Path(__file__).parent.parent


def test_a_clean_script_has_no_violations(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(CLEAN)
    check = pb.check("script.py", timeout_s=120)
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
    assert "script.py ran to its end: no problems found." in shown
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


@pytest.mark.parametrize("rule", CASES)
def test_a_violated_rule_is_detected_and_no_other(check_script, rule):
    source = CLEAN
    for old, new in CASES[rule]:
        assert old in source
        source = source.replace(old, new)
    check = check_script(source)
    assert confirmed(check) == [rule]
    (violation,) = check.breaches
    assert violation.sights[0].place.file == "script.py"
    assert violation.evidence
    assert all(number.value >= 0 for number in violation.evidence)
    line = source.splitlines()[violation.sights[0].place.line - 1]
    assert "toc = " in line or "model(x)" in line
    assert violation.link == f"{PAGE}#{rule}"


def test_a_mask_of_ones_beside_indices_is_no_constant_input(check_script):
    source = CLEAN.replace("x = torch.rand(8, 3, 48, 48)", "x = torch.randint(9, (8, 50))")
    source = source.replace("model = net()", "model = Masked()").replace(
        "model(x)", "model(x, mask)"
    )
    source = source.replace(
        "def net",
        "class Masked(nn.Embedding):\n"
        "    def __init__(self):\n        super().__init__(9, 64)\n"
        "    def forward(self, x, mask):\n        return super().forward(x) * mask\n"
        "mask = torch.ones(8, 50, 1)\n\ndef net",
    )
    assert confirmed(check_script(source)) == []
    assert confirmed(
        check_script(source.replace("randint(9, (", "full((").replace("50))", "50), 3)"))
    ) == ["constant-inputs"]


@pytest.mark.workers_counted
def test_training_may_be_timed_in_training_mode_and_with_gradients(check_script):
    source = CLEAN.replace(".eval()", "").replace("torch.no_grad()", "torch.enable_grad()")
    source = source.replace("output = model(x)", "model(x).sum().backward()")
    assert check_script(source).breaches == ()


def test_a_first_call_that_is_timed_alone_is_only_suspected(check_script):
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
    check = check_script(source)
    assert check.broken == ()
    assert check.timed[0].timings == 400
    assert {violation.gate for violation in check.breaches} <= {"no-warm-up", "too-short"}


@pytest.mark.workers_counted
def test_too_many_readings_are_reported_in_a_note(check_script):
    source = CLEAN.replace(
        "for _ in range(40):", "for _ in range(11000): time.time()\n        for _ in [1]:"
    )
    check = check_script(source)
    assert check.ending.is_complete
    assert any("more readings of clocks were not recorded" in note for note in check.notes)


@pytest.mark.workers_counted
def test_an_error_of_the_observation_does_not_reach_the_script(check_script):
    source = CLEAN.replace(
        "def net",
        "class Odd(nn.Module):\n"
        "    def parameters(self, *_):\n        raise KeyError('odd')\n"
        "    def forward(self, x):\n        return x\n\ndef net",
    )
    check = check_script(source.replace("output = model(x)", "output = Odd()(model(x))"))
    assert check.ending == Ending("finished", 0)
    assert any("not observed (KeyError: 'odd')" in note for note in check.notes)


def test_every_rule_is_documented():
    page = (ROOT / PAGE).read_text()
    for rule in RULES:
        assert f"\n## {rule.name}\n" in page


PLACE = Place("s.py", 5)
GPU_MODEL = Model("Net", PLACE, {"float32": 10}, "cuda:0", tf32_operations=("convolutions",))
GPU_CALLS = Calls(0, PLACE, 30, 0.9, 0, 0.0, False, False, False, ("float32",), ("float32",))


def timed_once_on_a_gpu(model: Model, calls: Calls, source: str = "") -> RuleContext:
    place = Place("s.py", 3)
    observations = Observations(
        (model,),
        tuple(Reading("time.time", place, at_s, False) for at_s in (0.0, 1.0)),
        (Span(), Span((calls,)), Span()),
        (Timing(0, 1, 1.0, 1.0, place),),
        Ending("finished", 0),
        gpu="GPU",
    )
    regions = find_regions(observations)
    return RuleContext(observations, regions, analyze(source, "s.py"))


@pytest.mark.parametrize(
    ("launched", "pending_s", "found"),
    [
        (False, 0.0, []),  # the observation's own marker, on a GPU that is shared
        (False, None, ["missing-synchronize"]),
        (False, 2e-6, ["missing-synchronize"]),
        (True, 0.0, ["missing-synchronize"]),  # bound by the host: the last kernel still runs
    ],
)
def test_only_work_of_the_script_counts_as_pending(launched, pending_s, found):
    """Calls, which have ended, a second reading in the condition of a loop, and a third one."""
    place, calls = Place("s.py", 3), Span((GPU_CALLS,))
    readings = [Reading("time.time", place, at_s, False) for at_s in (0.0, 1.0, 2.0)]
    readings[-1] = attrs.evolve(readings[-1], pending=True, pending_s=pending_s)
    observations = Observations(
        (attrs.evolve(GPU_MODEL, tf32_operations=()),),
        tuple(readings),
        (Span(), calls, calls if launched else Span(), Span()),
        (Timing(0, 2, 2.0, 1.9, place),),
        Ending("finished", 0),
        gpu="GPU",
    )
    regions = find_regions(observations)
    broken = violations(RuleContext(observations, regions, analyze("", "s.py")))
    assert [violation.gate for violation in broken if "sync" in violation.gate] == found


CALLS_IT_FLOAT32 = 'print("FP32", seconds)'


class TestTf32:
    """By torch's settings and the device's capability; on a real GPU in test_gpu_check.py."""

    def test_convolutions_in_tf32_are_a_violation_where_the_row_is_called_float32(self):
        context = timed_once_on_a_gpu(GPU_MODEL, GPU_CALLS, CALLS_IT_FLOAT32)
        (violation,) = violations(context)
        assert notes(context) == ()
        assert (violation.gate, violation.status) == ("tf32-baseline", FindingStatus.CONFIRMED)
        assert violation.sights[0].says == "Net: convolutions ran in TF32"

    def test_tf32_that_the_script_requested_is_only_suspected(self):
        model = attrs.evolve(GPU_MODEL, tf32_requested=True)
        context = timed_once_on_a_gpu(model, GPU_CALLS, CALLS_IT_FLOAT32)
        (violation,) = violations(context)
        assert violation.status is FindingStatus.SUSPECTED

    @pytest.mark.parametrize(
        "source",
        [
            "",
            "x = x.to('float32')",
            "torch.set_float32_matmul_precision('high')",
            "net(x, dtype='float32')",
            "'Times a float32 model.'",
        ],
    )
    def test_tf32_is_a_note_in_a_script_that_claims_nothing_about_float32(self, source):
        context = timed_once_on_a_gpu(GPU_MODEL, GPU_CALLS, source)
        assert violations(context) == ()
        assert notes(context) == ("Net: convolutions ran in TF32, not in IEEE float32",)

    @pytest.mark.parametrize(
        "source",
        [
            "rows = {'float32': net}",
            "print(f'fp32 {seconds:.3f}')",
            "time_fp32 = seconds",
            "def run_float32(): pass",
            "report(fp32=seconds)",
            "print('full precision')",
        ],
    )
    def test_labels_and_names_claim_float32(self, source):
        (violation,) = violations(timed_once_on_a_gpu(GPU_MODEL, GPU_CALLS, source))
        assert violation.gate == "tf32-baseline"

    def test_a_comparison_of_precisions_claims_it_without_a_word(self):
        half = attrs.evolve(GPU_MODEL, parameters={"float16": 10})
        half_calls = attrs.evolve(GPU_CALLS, model=1, inputs=("float16",), outputs=("float16",))
        once = timed_once_on_a_gpu(GPU_MODEL, GPU_CALLS)
        observations = attrs.evolve(
            once.observations,
            models=(GPU_MODEL, half),
            spans=(Span(), Span((GPU_CALLS, half_calls)), Span()),
        )
        regions = find_regions(observations)
        (violation,) = violations(RuleContext(observations, regions, StaticFindings()))
        assert violation.gate == "tf32-baseline"

    @pytest.mark.parametrize(
        ("model", "calls"),
        [
            ({"tf32_operations": ()}, {}),
            ({"parameters": {"float16": 10}}, {"inputs": ("float16",), "outputs": ("float16",)}),
            ({}, {"autocast": True, "outputs": ("float16",)}),
        ],
    )
    def test_ieee_float32_and_half_are_no_violation(self, model, calls):
        context = timed_once_on_a_gpu(
            attrs.evolve(GPU_MODEL, **model), attrs.evolve(GPU_CALLS, **calls), CALLS_IT_FLOAT32
        )
        assert violations(context) == ()
