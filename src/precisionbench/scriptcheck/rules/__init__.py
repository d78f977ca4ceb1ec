"""The validity rules of a benchmark script, in the order of the report.

A new rule is a function that returns a `RuleMatch`, a `Rule` beside it, its name in `RULES` and a
section in `docs/checking-a-script.md`. Rules that change the meaning of a number come first.
"""

from __future__ import annotations

from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.rules.clock import WRONG_CLOCK
from precisionbench.scriptcheck.rules.duration import TOO_SHORT
from precisionbench.scriptcheck.rules.failures import FAILED_CALLS
from precisionbench.scriptcheck.rules.item_rates import WRONG_ITEM_RATE
from precisionbench.scriptcheck.rules.modes import GRADIENTS_ON, TRAIN_MODE
from precisionbench.scriptcheck.rules.new_inputs import NEW_SHAPES, RECOMPILATION
from precisionbench.scriptcheck.rules.other_work import MOSTLY_OTHER_WORK
from precisionbench.scriptcheck.rules.patches import LEAKED_PATCHES
from precisionbench.scriptcheck.rules.precision import HALF_INTO_FLOAT32, TF32_BASELINE
from precisionbench.scriptcheck.rules.row_labels import FLOAT32_IN_HALF, HALF_IN_FLOAT32
from precisionbench.scriptcheck.rules.synchronization import HOST_COPIES, MISSING_SYNCHRONIZE
from precisionbench.scriptcheck.rules.values import (
    CONSTANT_INPUTS,
    DENORMAL_INPUTS,
    NON_FINITE_OUTPUTS,
)
from precisionbench.scriptcheck.rules.warm_up import NO_WARM_UP
from precisionbench.scriptcheck.violations import Violation

RULES: tuple[Rule, ...] = (
    LEAKED_PATCHES,
    MISSING_SYNCHRONIZE,
    WRONG_CLOCK,
    FAILED_CALLS,
    WRONG_ITEM_RATE,
    FLOAT32_IN_HALF,
    HALF_IN_FLOAT32,
    TF32_BASELINE,
    HALF_INTO_FLOAT32,
    NO_WARM_UP,
    NEW_SHAPES,
    RECOMPILATION,
    TRAIN_MODE,
    GRADIENTS_ON,
    HOST_COPIES,
    MOSTLY_OTHER_WORK,
    NON_FINITE_OUTPUTS,
    CONSTANT_INPUTS,
    DENORMAL_INPUTS,
    TOO_SHORT,
)


def violations(context: RuleContext) -> tuple[Violation, ...]:
    """All violations of a script, in the order of `RULES`.

    Args:
        context: what was observed and read.
    """
    return tuple(filter(None, (rule.violation(context) for rule in RULES)))


__all__ = ["RULES", "Rule", "RuleContext", "RuleMatch", "violations"]
