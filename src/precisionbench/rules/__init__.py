"""Reporting conventions: a row as trtexec, MLPerf and others would state it.

Each module is one convention: a function from a row to statements, with its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from precisionbench.results import BackendResult
from precisionbench.rules import jetson_benchmarks, mlperf, ours, trtexec, wall_clock
from precisionbench.rules.statement import Source, Statement

__all__ = ["Source", "Statement", "statements"]

_REPORTED = "the row is reported, not measured here, and its source does not state this figure"


def statements(row: BackendResult, engines: Sequence[BackendResult] = ()) -> tuple[Statement, ...]:
    """The figures of a row under each reporting convention.

    Args:
        row: a measured row.
        engines: rows of other engines of the device, whose rates `jetson_benchmarks` adds.
    """
    of_others = _of_other_conventions(row, engines)
    if any(one.measurement.is_reported for one in (row, *engines)):
        of_others = map(_without_value, of_others)
    return (*ours.statements(row), *of_others)


def _of_other_conventions(
    row: BackendResult, engines: Sequence[BackendResult]
) -> Iterator[Statement]:
    yield from trtexec.statements(row)
    yield jetson_benchmarks.statement([row, *engines])
    yield from mlperf.statements(row)
    yield wall_clock.statement(row)


def _without_value(statement: Statement) -> Statement:
    """A statement without a value, for a row that was reported and has no samples."""
    return attrs.evolve(statement, value=None, low=None, high=None, missing=_REPORTED, unmet=())
