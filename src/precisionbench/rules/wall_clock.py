"""What a loop of calls on a clock that does not wait for the device would say."""

from __future__ import annotations

import attrs

from precisionbench.results.records import BackendResult
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
# Assumed: the driver does not tell it. About 1000 by the source; 915 to 975 kernels on an H200.
QUEUE_LAUNCHES = 1024
CALLS = 30  # as many as in the founding experiment
_ASYNCHRONOUS = (
    "{calls} calls between two readings of the host's clock, without waiting for the device: work "
    "that is still in the launch queue at the second reading is not inside"
)
_KNOWN = f"the launch queue was taken to hold {QUEUE_LAUNCHES:,} launches"
_UNKNOWN = "launches in a call are not known, so the queue was taken to have no end"


@attrs.frozen
class Loop:
    """How long the host takes for a loop of calls that it does not wait for, by a model.

    It is back as soon as it has enqueued all calls, which takes `calls * enqueue_s`, or as soon as
    no more is left than the launch queue holds. All times are in seconds.

    Attributes:
        calls: how many.
        device_s: a call's time on the device, calls back to back.
        enqueue_s: the host's time to enqueue a call.
        launches: kernels launched in a call; None where that is not known.
    """

    calls: int
    device_s: float
    enqueue_s: float
    launches: float | None

    @property
    def longest_s(self) -> float:
        """With nothing left in the queue: what a synchronised clock reads."""
        return self.calls * self.device_s

    @property
    def shortest_s(self) -> float:
        """With a full queue left."""
        queued = QUEUE_LAUNCHES / self.launches if self.launches else float(self.calls)
        waited_s = max(0.0, self.calls - queued) * self.device_s
        return min(self.longest_s, max(self.calls * self.enqueue_s, waited_s))


def statement(row: BackendResult, calls: int = CALLS) -> Statement:
    """The range in which the throughput by such a loop lies.

    Args:
        row: a measured row.
        calls: of the loop.
    """
    figure, unit = f"throughput of {calls} calls, at most", unit_of(row)
    inside = _ASYNCHRONOUS.format(calls=calls)
    if "stream_escape" in row.passes.labels or (by_events(row) and row.enqueue_s is None):
        missing = "how long the host needs for a call is not known"
        return Statement(RULE, figure, unit, inside, SOURCE, missing=missing)
    items, latency_s = items_of(row), row.latency.value
    if not by_events(row):  # a call comes back when its work is done
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
