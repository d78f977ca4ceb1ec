"""The times of a call that are not its latency: device, enqueue, wall, and CUDA-graph replay.

They are never mixed with the headline: each answers another question, and each has its own pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from precisionbench.errors import FOREIGN_ERRORS, one_line
from precisionbench.probes.graphs import capture
from precisionbench.torchtools.timer import Call, Clock, CudaEventClock, Timer

# A spin this many times as long as the host needs for the call hides the host's time.
_SPIN_FACTOR = 2.0
_MIN_SPIN_S = 0.5e-3
_MAX_SPIN_S = 0.5
_CALIBRATION_CYCLES = 2_000_000


class UnmeasurableError(Exception):
    """A pass has no figure here; the text says why."""


def enqueue(clock: Clock, call: Call, samples: int) -> tuple[float, ...]:
    """The host's time of a call from a drained queue, in seconds.

    Args:
        clock: of the device.
        call: one forward pass.
        samples: how many to take.
    """
    return tuple(_host_s(clock, call, drain=False) for _ in range(samples))


def wall(clock: Clock, call: Call, samples: int) -> tuple[float, ...]:
    """The time from a drained device, through a call, to a drained device, in seconds."""
    return tuple(_host_s(clock, call, drain=True) for _ in range(samples))


def _host_s(clock: Clock, call: Call, drain: bool) -> float:
    clock.wait()
    start_ns = time.perf_counter_ns()
    result = call()
    if drain:
        clock.wait()
    end_ns = time.perf_counter_ns()
    del result  # freeing it is no part of the call
    return (end_ns - start_ns) * 1e-9


def primed(clock: CudaEventClock, call: Call, samples: int) -> tuple[float, ...]:
    """The device's time of a call, with the queue primed so that the host's time is hidden.

    A finite spin kernel keeps the device busy while the host enqueues the call. The launch queue
    is finite too: where the host was not done before the spin was over, a sample says nothing and
    a longer spin is tried.

    Args:
        clock: CUDA events.
        call: one forward pass.
        samples: how many to take.

    Raises:
        UnmeasurableError: no spin hides the host's time.
    """
    cycles_per_s = spin_rate(clock)
    spin_s = max(_MIN_SPIN_S, _SPIN_FACTOR * median(enqueue(clock, call, 3)))
    taken: list[float] = []
    while len(taken) < samples:
        device_s, hidden = _primed_sample(clock, call, round(spin_s * cycles_per_s))
        if hidden:
            taken.append(device_s)
        elif (spin_s := spin_s * 2) > _MAX_SPIN_S:
            raise UnmeasurableError(
                "the host cannot enqueue the whole call ahead of the device: it waits for the "
                "device inside, or its kernels fill the launch queue"
            )
    return tuple(taken)


def spin_rate(clock: CudaEventClock) -> float:
    """Cycles of the spin kernel in a second.

    Args:
        clock: CUDA events.

    Raises:
        UnmeasurableError: a known spin reads nothing.
    """
    block = Timer(clock).block(lambda: torch.cuda._sleep(_CALIBRATION_CYCLES), 5)
    return _CALIBRATION_CYCLES / median(block)


def _primed_sample(clock: CudaEventClock, call: Call, cycles: int) -> tuple[float, bool]:
    before, start, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    clock.wait()
    begun_s = time.perf_counter()
    before.record(clock.stream)
    torch.cuda._sleep(cycles)
    start.record(clock.stream)
    call()
    end.record(clock.stream)
    host_s = time.perf_counter() - begun_s
    clock.wait()
    return start.elapsed_time(end) * 1e-3, host_s < before.elapsed_time(start) * 1e-3


def graph_replay(clock: CudaEventClock, call: Call, samples: int) -> tuple[float, ...]:
    """The time of the call captured as a CUDA graph: what it would take without launch cost.

    A counterfactual, never the headline. Capturing synchronises and empties torch's cache, so it
    comes after everything else.

    Args:
        clock: CUDA events.
        call: one forward pass.
        samples: how many to take.

    Raises:
        UnmeasurableError: the call cannot be captured; the text says why.
    """
    try:
        replay = capture(clock, call)
    except FOREIGN_ERRORS as exc:
        raise UnmeasurableError(f"not capturable: {one_line(exc)}") from exc
    timer = Timer(clock)
    once_s = median(timer.block(replay, 3))
    return timer.block(replay, samples, timer.calls_per_sample(once_s), settle_calls=2)


def samples_for(call_s: float, seconds: float, least: int = 3, most: int = 50) -> int:
    """How many calls of about `call_s` fit into `seconds`, within limits."""
    return max(least, min(most, int(seconds / call_s)))


def or_unknown(
    unknown: dict[str, str], name: str, take: Callable[[], tuple[float, ...]]
) -> tuple[float, ...]:
    """What a pass gives; where it gives nothing, `unknown` keeps the reason under its name."""
    try:
        return take()
    except UnmeasurableError as exc:
        unknown[name] = str(exc)
        return ()
