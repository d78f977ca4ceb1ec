"""Whether CUDA events on our stream can time a call at all; checked once, before measuring."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from precisionbench.errors import MeasurementError
from precisionbench.probes import timing
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock, Timer

SYNC_INSIDE = "sync_inside"
STREAM_ESCAPE = "stream_escape"
# The work ran on another stream where events measure less than this share of the wall time, and
# the host was done this many seconds before the device.
_ESCAPE_SHARE = 0.5
_ESCAPE_S = 50e-6
# The end of a short call may be noticed late; one of long calls says enough.
_CALLS, _CALLS_S = 5, 0.05
_SYNC_WARNING = "called a synchronizing"


def qualify(clock: CudaEventClock, call: Call) -> tuple[str, ...]:
    """Why events on our stream cannot time this call.

    Args:
        clock: CUDA events.
        call: one forward pass, called before.

    Returns:
        `sync_inside`, `stream_escape`, both or none.

    Raises:
        MeasurementError: the clock does not see a kernel of known length.
    """
    timing.spin_rate(clock)
    labels = []
    if synchronizes(call):
        labels.append(SYNC_INSIDE)
    if escapes(clock, call):
        labels.append(STREAM_ESCAPE)
    return tuple(labels)


def synchronizes(call: Call) -> bool:
    """Whether an operation of torch inside the call synchronizes, e.g. `.item()`.

    Args:
        call: one forward pass.
    """
    return bool(synchronizations(call))


def synchronizations(call: Call) -> list[str]:
    """Where operations of torch inside the call synchronize with the device.

    Args:
        call: one forward pass.

    Returns:
        Places such as `model.py:12`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # first of all: entering the mode warns, too
        with _sync_debug_mode():
            call()
    return [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if _SYNC_WARNING in str(warning.message)
    ]


@contextlib.contextmanager
def _sync_debug_mode() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("warn")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def escapes(clock: CudaEventClock, call: Call) -> bool:
    """Whether the work runs on another stream than ours, so that our events miss it.

    Args:
        clock: CUDA events on our stream.
        call: one forward pass.
    """
    device = HostClock(clock.device)
    enqueued_s, walls_s = timing.enqueue_and_wall(device, call, 1)
    calls = max(1, min(_CALLS, math.ceil(_CALLS_S / walls_s[0])))
    if calls > 1:
        enqueued_s, walls_s = timing.enqueue_and_wall(device, call, calls)
    # The minimum, because a disturbed host notices the end of a short call late.
    wall_s, enqueue_s = min(walls_s), median(enqueued_s)
    try:
        event_s = median(Timer(clock).block(call, calls))
    except MeasurementError:  # not even the events' own cost was between them
        event_s = 0.0
    device.wait()
    return event_s < _ESCAPE_SHARE * wall_s and wall_s - enqueue_s > _ESCAPE_S
