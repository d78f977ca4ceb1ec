"""Under whose rules: a measured row as others would state it. Pure, without torch.

Each module is one rule: a small function from a row to statements, with the source of the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.results import BackendResult
from precisionbench.rules import jetson_benchmarks, mlperf, ours, trtexec, wall_clock
from precisionbench.rules.statement import Source, Statement

__all__ = ["Source", "Statement", "statements"]


def statements(row: BackendResult, engines: Sequence[BackendResult] = ()) -> tuple[Statement, ...]:
    """What each rule would say of a row.

    Args:
        row: a measured row.
        engines: rows of other engines of the device, which `jetson_benchmarks` would add up.
    """
    return (
        *ours.statements(row),
        *trtexec.statements(row),
        jetson_benchmarks.statement([row, *engines]),
        *mlperf.statements(row),
        wall_clock.statement(row),
    )
