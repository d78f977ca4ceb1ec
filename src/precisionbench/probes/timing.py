"""The times of a call that are not its latency: device, enqueue, wall, and CUDA-graph replay.

They are never mixed with the latency: each answers another question, and each has its own pass.
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
NOT_CAPTURABLE = "not capturable"  # how the reason of a failed capture begins


class UnmeasurableError(Exception):
    """A pass cannot measure anything here; the message says why."""


def enqueue_and_wall(
    clock: Clock, call: Call, samples: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The host's time to enqueue a call on an idle device, and the time until it is done.

    Args:
        clock: of the device.
        call: one forward pass.
        samples: how many to take.

    Returns:
        The two times of each sample, in seconds.
    """
    pairs = [_enqueue_and_wall_s(clock, call) for _ in range(samples)]
    return tuple(enqueue_s for enqueue_s, _ in pairs), tuple(wall_s for _, wall_s in pairs)


def _enqueue_and_wall_s(clock: Clock, call: Call) -> tuple[float, float]:
    clock.wait()
    start_ns = time.perf_counter_ns()
    result = call()
    enqueued_ns = time.perf_counter_ns()
    clock.wait()
    end_ns = time.perf_counter_ns()
    del result  # freeing it is not part of the call
    return (enqueued_ns - start_ns) * 1e-9, (end_ns - start_ns) * 1e-9


def primed(
    clock: CudaEventClock, call: Call, call_s: float, enqueue_s: float, seconds: float
) -> tuple[float, ...]:
    """The device's time of a call, with the queue filled so that the host's time is hidden.

    A spin kernel keeps the device busy while the host enqueues the call. A sample in which the
    host was not done before the spin was over is discarded, and a longer spin is tried. The launch
    queue is finite, so that may never succeed.

    Args:
        clock: CUDA events.
        call: one forward pass.
        call_s: about how long it takes, in seconds.
        enqueue_s: about how long the host needs for it, in seconds.
        seconds: for all samples; at least 3 are taken.

    Raises:
        UnmeasurableError: no spin hides the host's time.
    """
    cycles_per_s = spin_rate(clock)
    spin_s = max(_MIN_SPIN_S, _SPIN_FACTOR * enqueue_s)
    samples_s: list[float] = []
    while len(samples_s) < samples_for(call_s + spin_s, seconds):
        device_s, hidden = _primed_sample(clock, call, round(spin_s * cycles_per_s))
        if hidden:
            samples_s.append(device_s)
        elif (spin_s := spin_s * 2) > _MAX_SPIN_S:
            raise UnmeasurableError(
                "the host cannot enqueue the whole call ahead of the device: the call "
                "synchronizes with the device, or its kernels fill the launch queue"
            )
    return tuple(samples_s)


def spin_rate(clock: CudaEventClock) -> float:
    """Cycles of the spin kernel in a second.

    Args:
        clock: CUDA events.

    Raises:
        MeasurementError: the clock does not measure a spin of known length.
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


def graph_replay(clock: CudaEventClock, call: Call, seconds: float) -> tuple[float, ...]:
    """The time of the call captured as a CUDA graph: what it would take without launch cost.

    A counterfactual, never the latency. Capturing synchronizes and empties torch's cache, so it
    comes after everything else.

    Args:
        clock: CUDA events.
        call: one forward pass.
        seconds: for all samples; at least 3 are taken.

    Raises:
        UnmeasurableError: the call cannot be captured; the text says why.
    """
    try:
        replay = capture(clock, call)
    except FOREIGN_ERRORS as exc:
        raise UnmeasurableError(f"{NOT_CAPTURABLE}: {one_line(exc)}") from exc
    timer = Timer(clock)
    once_s = median(timer.block(replay, 3))
    calls = timer.calls_per_sample(once_s)
    return timer.block(replay, samples_for(once_s * calls, seconds), calls, settle_calls=2)


def samples_for(call_s: float, seconds: float, least: int = 3, most: int = 50) -> int:
    """How many calls fit into a time, within limits.

    Args:
        call_s: about how long a call takes.
        seconds: the time.
        least: the smallest answer.
        most: the largest answer.
    """
    return max(least, min(most, int(seconds / call_s)))


def or_unknown(
    unknown: dict[str, str], name: str, take: Callable[[], tuple[float, ...]]
) -> tuple[float, ...]:
    """The samples of a pass, or none where it is unmeasurable: the reason is then in `unknown`.

    Args:
        unknown: takes the reason.
        name: of the pass.
        take: the pass.
    """
    try:
        return take()
    except UnmeasurableError as exc:
        unknown[name] = str(exc)
        return ()
