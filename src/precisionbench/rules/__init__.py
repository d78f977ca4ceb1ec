"""Reporting conventions: a row as trtexec, MLPerf and others would state it.

Each module is one rule: a small function from a row to statements, with the source of the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from precisionbench.results.records import BackendResult
from precisionbench.rules import jetson_benchmarks, mlperf, ours, trtexec, wall_clock
from precisionbench.rules.statement import Source, Statement

__all__ = ["Source", "Statement", "statements"]

_REPORTED = "the row is reported, not measured here, and its source does not tell it"


def statements(row: BackendResult, engines: Sequence[BackendResult] = ()) -> tuple[Statement, ...]:
    """What each rule would say of a row.

    Args:
        row: a measured row.
        engines: rows of other engines of the device, which `jetson_benchmarks` would add up.
    """
    of_others = _of_others(row, engines)
    if any(one.measurement.is_reported for one in (row, *engines)):
        of_others = map(_not_stated, of_others)
    return (*ours.statements(row), *of_others)


def _of_others(row: BackendResult, engines: Sequence[BackendResult]) -> Iterator[Statement]:
    yield from trtexec.statements(row)
    yield jetson_benchmarks.statement([row, *engines])
    yield from mlperf.statements(row)
    yield wall_clock.statement(row)


def _not_stated(statement: Statement) -> Statement:
    """What follows from samples cannot be stated of a figure that somebody reported."""
    return attrs.evolve(statement, value=None, low=None, high=None, missing=_REPORTED, unmet=())
