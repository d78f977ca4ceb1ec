"""The figures that this library reports."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.results import BackendResult
from precisionbench.results.measurement import REPORTED
from precisionbench.rules.statement import Source, Statement, by_events, items_of, unit_of

RULE = "precisionbench"
_SOURCE = Source("precisionbench, what is measured and how", "docs/measuring.md")
_EVENTS = (
    "the call on the device, between two CUDA events, calls back to back; gaps in which the "
    "device waits for the host are inside, transfers of inputs and outputs are not"
)
_HOST = "the call, from a drained device to a drained device, by the host's clock"
_REPORTED = "not measured here; how it was timed is what its source says"


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
