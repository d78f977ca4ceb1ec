"""What is measured of a row in addition to its latency."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from precisionbench.display import Shown
from precisionbench.results.validators import check_samples

# Those that can be left out, in the order in which they are where time is short.
PASSES = ("energy", "transfers", "graph", "device", "wall")


@attrs.frozen(repr=False)
class Passes(Shown):
    """Measurements of one replica in addition to the latency, each in a separate pass.

    Attributes:
        device_s: GPU time of a call with the host's time hidden; empty where it is not known.
        enqueue_s: host time to enqueue a call while the queue is empty.
        wall_s: time of a call with the device idle before and after it.
        graph_s: replays of the call captured as a CUDA graph.
        unknown: for each of these that is missing, why.
        labels: `sync_inside` (the call synchronises with the device, so `latency` was timed with
            the host's clock), `stream_escape` (the call runs on another stream than the timer's;
            likewise).
        peak_allocated_bytes: peak memory that torch's allocator had allocated during a call.
        peak_reserved_bytes: peak memory that torch's allocator had reserved on the device.
        driver_bytes: device memory that the driver allocated for preparing and the first calls.
            It includes engines that bypass torch's allocator and excludes the CUDA context.
        energy_j: energy of one call in joules, of the whole board, averaged over half a
            second of consecutive calls.
        to_device_s: time to copy the inputs from pinned host memory to the device.
        to_host_s: time to copy the outputs from the device to pinned host memory.
    """

    device_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
    enqueue_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
    wall_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
    graph_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
    unknown: Mapping[str, str] = attrs.field(factory=dict)
    labels: tuple[str, ...] = ()
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    driver_bytes: int | None = None
    energy_j: float | None = None
    to_device_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
    to_host_s: tuple[float, ...] = attrs.field(default=(), validator=check_samples)
