"""The throughput that an unsynchronised wall clock would show for a loop of calls."""

from __future__ import annotations

import attrs

from precisionbench.results import BackendResult
from precisionbench.rules.statement import (
    Source,
    Statement,
    by_events,
    items_of,
    unit_of,
)

RULE = "unsynchronised wall clock"
SOURCE = Source(
    "NVIDIA Developer Forums: a stream takes about 1000 launches, then each waits for one to end",
    "https://forums.developer.nvidia.com/t/cuda-stream-are-blocked-when-luanch-lots-of-kernels-1000/"
    "68937",
)
# Assumed, because the driver does not report it: about 1000 by the source; 915 to 975 kernels on
# an H200.
QUEUE_LAUNCHES = 1024
CALLS = 30  # as in the experiment of docs/rules.md
_ASYNCHRONOUS = (
    "{calls} calls between two readings of the host clock, without synchronisation; excludes work "
    "that is still in the launch queue at the second reading"
)
_KNOWN = f"assumes a launch queue of {QUEUE_LAUNCHES:,} launches"
_UNKNOWN = "assumes an unlimited launch queue, because the number of launches is not known"


@attrs.frozen
class Loop:
    """A model of the host's time for a loop of asynchronous calls.

    The loop ends when all calls are enqueued, which takes `calls * enqueue_s`, or when the
    remaining kernels fit into the launch queue, whichever is later.

    Attributes:
        calls: number of calls.
        device_s: time of a call on the device, for consecutive calls.
        enqueue_s: host time to enqueue a call.
        launches: kernels launched in a call; None where the number is not known.
    """

    calls: int
    device_s: float
    enqueue_s: float
    launches: float | None

    @property
    def longest_s(self) -> float:
        """The time with an empty queue at the end, as a synchronised clock measures it."""
        return self.calls * self.device_s

    @property
    def shortest_s(self) -> float:
        """The time with a full queue at the end."""
        queued = QUEUE_LAUNCHES / self.launches if self.launches else float(self.calls)
        waited_s = max(0.0, self.calls - queued) * self.device_s
        return min(self.longest_s, max(self.calls * self.enqueue_s, waited_s))


def statement(row: BackendResult, calls: int = CALLS) -> Statement:
    """The range of the throughput by an unsynchronised loop.

    Args:
        row: a measured row.
        calls: number of calls of the loop.
    """
    figure, unit = f"throughput of {calls} calls, at most", unit_of(row)
    inside = _ASYNCHRONOUS.format(calls=calls)
    if "stream_escape" in row.passes.labels or (by_events(row) and row.enqueue_s is None):
        missing = "the launch time of a call is not known"
        return Statement(RULE, figure, unit, inside, SOURCE, missing=missing)
    items, latency_s = items_of(row), row.latency.value
    if not by_events(row):  # calls are synchronous
        rate = items / latency_s
        return Statement(RULE, figure, unit, inside, SOURCE, rate, rate, rate, "derived")
    assert row.enqueue_s is not None
    launches = _launches(row)
    loop = Loop(calls, latency_s, row.enqueue_s, launches)
    low, high = (calls * items / time_s for time_s in (loop.longest_s, loop.shortest_s))
    assumed = (_KNOWN if launches else _UNKNOWN,)
    return Statement(
        RULE, figure, unit, inside, SOURCE, high, low, high, kind="derived", unmet=assumed
    )


def _launches(row: BackendResult) -> float | None:
    """Kernels launched in a call; None where not known, or CUDA graphs launch many at once."""
    evidence = row.evidence
    return None if evidence is None or evidence.graph_launches else evidence.launches or None
