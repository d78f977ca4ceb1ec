"""Correct scripts of every usual style pass, and the fault of each wrong twin is found."""

from __future__ import annotations

import pytest

from scripts import confirmed
from timing_styles import STYLES

# What runs in the processes of these scripts, and in those of no others.
COUNTED = ("torch.utils.benchmark", "torch.compile")
TWINS = [
    pytest.param(style, id=name, marks=[pytest.mark.workers_counted] if name in COUNTED else [])
    for name, style in STYLES.items()
]


@pytest.mark.uncounted
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_correct_script_passes_without_a_problem_or_a_suspicion(check_script, style):
    check = check_script(style.correct)
    assert check.ending.is_complete
    assert check.models
    assert check.breaches == ()
    assert check.timed


@pytest.mark.parametrize("style", TWINS)
def test_the_fault_of_a_wrong_twin_is_found_and_no_other(check_script, style):
    check = check_script(style.wrong)
    assert check.ending.is_complete
    assert [violation.gate for violation in check.breaches] == [style.rule]
    assert confirmed(check) == [style.rule] or style.rule == "new-shapes"
