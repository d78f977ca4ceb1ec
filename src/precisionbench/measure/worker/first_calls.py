"""The first calls of a prepared backend: CUDA-graph capture, warm-up, and the choice of a clock."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import cast

import attrs
import torch

from precisionbench.backends import Backend
from precisionbench.errors import ExecutionError, kind_of
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.measure.worker.graph_capture import captured
from precisionbench.measure.worker.protocol import FIRST_CALL, KnownCalls
from precisionbench.probes.event_timing_checks import qualify
from precisionbench.probes.graphs import Replay
from precisionbench.probes.growth import StateBytes, growth_warning
from precisionbench.system.memory import device_allocations
from precisionbench.torchtools.agreement import cpu_copies
from precisionbench.torchtools.global_state import compilations
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock, Timer

# How many calls in a row must neither compile nor allocate, and when to stop waiting for that.
_QUIET_CALLS = 3
_MAX_WARMUP_CALLS = 50
_WARMUP_LIMIT_S = 10.0
_LONG_CALL_S = 0.5  # one call of this length is enough


@attrs.frozen
class WarmUp:
    """What the warm-up calls have shown; the fields are those of `Opening`."""

    warmup_calls: int
    call_s: float
    cores_busy: float


@attrs.frozen
class Times:
    """How long the steps up to the first block took; the fields are those of `Opening`."""

    build_s: float
    first_call_s: float
    warm_up: WarmUp


@attrs.frozen
class FirstCalls:
    """What is known once a prepared backend has been called for the first time.

    Attributes:
        call: what to time: the prepared call, or the replay of its CUDA graph.
        output: the tensors of the first call's output by their paths, on the CPU.
        labels: why CUDA events cannot time it; empty where they can.
        times: of the steps so far.
        growth: a warning where the inputs or the model grow with each call; else empty.
    """

    call: Call
    output: Mapping[str, torch.Tensor]
    labels: tuple[str, ...]
    times: Times
    growth: str = ""


def run_first_calls(
    backend: Backend,
    call: Call,
    build_s: float,
    timer: Timer,
    on_step: Callable[[str], object],
    known: KnownCalls | None = None,
    state: Callable[[], StateBytes] = dict,
    limit: WarmCallLimit | None = None,
) -> FirstCalls:
    """Capture the call where the backend's options say so, call it once, and warm it up.

    Args:
        backend: its common options decide.
        call: one forward pass.
        build_s: seconds that `prepare` took.
        timer: of the device.
        on_step: called with a description of each step before it begins.
        known: what an earlier replica has shown, and is not measured again.
        state: gives the size of what a call can keep for the next one.
        limit: how long a warm call may take; None: any time.

    Raises:
        SlowCallError: a warm call is beyond the limit.
    """
    if backend.cuda_graph:
        on_step("capturing a CUDA graph")
        replay, capture_s = timer.once(partial(captured, timer.clock, call))
        call, build_s = cast(Replay, replay), build_s + capture_s
    on_step(FIRST_CALL)
    first, first_call_s = timer.once(call)
    output = cpu_copies(readable(first))
    del first  # a large output must not stay on the device
    if not backend.is_timed:
        times = Times(build_s, first_call_s, WarmUp(0, first_call_s, 0.0))
        return FirstCalls(call, output, (), times)
    on_step("warm-up calls")
    growth = ""
    if known is None:
        before, found = state(), warm_up(call, timer, limit)
        growth = growth_warning(before, state(), found.warmup_calls)
        labels = event_timing_labels(timer, call)
    else:
        calls, _ = _call_until_quiet(call, timer)
        found = WarmUp(calls, known.call_s, known.cores_busy)
        labels = tuple(known.labels)
    return FirstCalls(call, output, labels, Times(build_s, first_call_s, found), growth)


def readable(output: object) -> object:
    """The output of a call that has computed it.

    Args:
        output: what the model returned.

    Raises:
        ExecutionError: it is computed only when it is read.
    """
    if isinstance(output, (Iterator, types.AsyncGeneratorType, types.CoroutineType)):
        raise ExecutionError(
            f"the model returned {kind_of(output)}, which computes only when it is read",
            "wrap the model so that its forward returns tensors",
        )
    return output


def warm_up(call: Call, timer: Timer, limit: WarmCallLimit | None = None) -> WarmUp:
    """Call until some calls in a row neither compile nor take memory from the device.

    Args:
        call: one forward pass, called before.
        timer: of the device.
        limit: how long the last of these calls may take; None: any time.

    Returns:
        The calls made, about how many seconds the last ones took each, and how many CPU cores
        they kept busy.

    Raises:
        SlowCallError: all of the last calls are beyond the limit.
    """
    calls, quiet_s = _call_until_quiet(call, timer)
    if limit is not None:
        limit.check(min(quiet_s))
    samples = _quiet_calls(quiet_s[-1])
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    call_s = median(timer.block(call, samples))
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return WarmUp(calls + samples, call_s, cpu_s / wall_s)


def _call_until_quiet(call: Call, timer: Timer) -> tuple[int, list[float]]:
    """Call until some calls in a row neither compile nor allocate.

    Returns:
        How many calls that took, and the seconds of those in a row, or of the last one.
    """
    end_s = time.monotonic() + _WARMUP_LIMIT_S
    calls, quiet_s, last_s = 0, list[float](), 0.0
    while (
        len(quiet_s) < _quiet_calls(last_s)
        and calls < _MAX_WARMUP_CALLS
        and time.monotonic() < end_s
    ):
        before = (compilations(), device_allocations())
        last_s = timer.once(call)[1]  # the output is let go of at once
        calls += 1
        is_quiet = (compilations(), device_allocations()) == before
        quiet_s = [*quiet_s, last_s] if is_quiet else []
    return calls, quiet_s or [last_s]


def _quiet_calls(call_s: float) -> int:
    return 1 if call_s >= _LONG_CALL_S else _QUIET_CALLS


def event_timing_labels(timer: Timer, call: Call) -> tuple[str, ...]:
    """Why CUDA events cannot time a call; empty where they can, or are not used.

    Args:
        timer: of the device.
        call: one forward pass, called before.
    """
    return qualify(timer.clock, call) if isinstance(timer.clock, CudaEventClock) else ()


def suitable_timer(timer: Timer, labels: tuple[str, ...]) -> Timer:
    """A timer on the host's clock where CUDA events cannot time the call, else the same timer.

    Args:
        timer: of the device.
        labels: as `event_timing_labels` gave them.
    """
    clock = timer.clock
    return Timer(HostClock(clock.device)) if labels and isinstance(clock, CudaEventClock) else timer
