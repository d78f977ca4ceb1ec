"""The figures that this library reports."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.results import BackendResult
from precisionbench.results.measurement import REPORTED
from precisionbench.rules.statement import Source, Statement, by_events, items_of, unit_of

RULE = "precisionbench"
_SOURCE = Source("precisionbench, how it measures", "docs/measuring.md")
_EVENTS = (
    "the call on the GPU, between two CUDA events, in consecutive calls; includes GPU idle time, "
    "excludes transfers of inputs and outputs"
)
_HOST = "the synchronised call, by the host clock"
_REPORTED = "not measured here; the source of the row describes its timing"


def statements(row: BackendResult) -> Iterator[Statement]:
    """The row's latency and throughput, with the intervals of all its tables.

    Args:
        row: a measured row.
    """
    is_reported = row.measurement.is_reported
    inside = _REPORTED if is_reported else _EVENTS if by_events(row) else _HOST
    kind = REPORTED if is_reported else "measured"
    latency = row.latency
    rate = latency.inverse_of(items_of(row))
    for figure, unit, found in (
        ("latency, median", "s", latency),
        ("throughput", unit_of(row), rate),
    ):
        yield Statement(
            RULE, figure, unit, inside, _SOURCE, found.value, found.low, found.high, kind
        )
