"""Patches of torch that stay when a later model runs: the case this check was made for."""

from __future__ import annotations

import pytest

from scripts import CLEAN, FOUNDING, PATCHER, confirmed


def test_later_models_run_with_the_patches_of_an_earlier_one(check_script):
    check = check_script(FOUNDING)
    assert confirmed(check)[0] == "leaked-patches"
    first = check.breaches[0]
    assert first.number == "C15"
    assert [number.value for number in first.evidence] == [2, 3, 2]
    assert len(first.sights) == 2
    assert "since Sequential (model 2, script.py" in first.sights[0].says
    assert "its parameters are float32 and its output bfloat16" in first.sights[0].says


@pytest.mark.workers_counted
def test_both_errors_of_the_founding_script(check_script):
    launching = "class Net(nn.Sequential):\n    def forward(self, x):\n        launch(0.004)\n"
    launching += "        return super().forward(x)\n"
    source = FOUNDING.replace("import time", "import time\nfrom slow_device import launch")
    source = source.replace("def net():", launching + "\ndef net():")
    check = check_script(source.replace("nn.Sequential(nn", "Net(nn"), device="simulated")
    assert confirmed(check) == ["leaked-patches", "missing-synchronize"]
    assert check.ending.is_complete


def test_patches_undone_before_the_next_model_are_no_violation(check_script):
    undone = FOUNDING.replace("results = []", "results, own = [], dict(vars(F))")
    undone = undone.replace("    results.append", "    vars(F).update(own)\n    results.append")
    assert check_script(undone).breaches == ()


def test_patches_for_the_last_model_are_no_violation(check_script):
    assert check_script(FOUNDING.replace('"O0", "Float32"', "")).breaches == ()


def test_the_same_model_before_and_after_the_patches_is_a_violation(check_script):
    source = FOUNDING.replace("results = []", "results, shared = [], net().eval()")
    source = source.replace('["O3", "O1", "O0", "Float32"]', '["O0", "O1", "Float32"]')
    source = source.replace(
        "initialize(net().eval(), name)",
        "shared if name != 'O1' else initialize(net().eval(), name)",
    )
    (violation,) = check_script(source).broken
    assert violation.gate == "leaked-patches"
    assert violation.evidence[0].value == 1


def test_patches_without_effect_are_only_suspected(check_script):
    harmless = FOUNDING.replace("v.bfloat16() if isinstance(v, torch.Tensor) else v", "v")
    check = check_script(harmless)
    assert check.broken == ()
    assert [violation.gate for violation in check.breaches] == ["leaked-patches"]


@pytest.mark.workers_counted
@pytest.mark.parametrize(
    ("levels", "victims"), [(["O1", "O0"], 1), (["O1", "O1"], 0), (["O2", "O0"], 0)]
)
def test_models_given_to_apex_at_o1_are_meant_to_be_patched(
    check_script, tmp_path, levels, victims
):
    """With a replacement of Apex; test_gpu_check.py has the real one."""
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").write_text("from . import amp\n")
    patcher = PATCHER.partition("def net")[0].replace("level", "opt_level")
    (tmp_path / "apex/amp.py").write_text(f"import torch\n{patcher}")
    source = CLEAN.replace("import torch\n", "import torch\nimport apex.amp as amp\n")
    source = source.replace("nn.BatchNorm2d(8), ", "")
    source = source.replace('["first", "second"]', str(levels))
    check = check_script(
        source.replace("net().eval()", "amp.initialize(net().eval(), opt_level=name)")
    )
    assert len(check.broken) == bool(victims)
    if victims:
        assert check.broken[0].evidence[0].value == victims
        assert "since Apex O1 for Sequential (model 1" in check.broken[0].sights[0].says
