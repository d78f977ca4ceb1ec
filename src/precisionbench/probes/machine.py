"""Measures a machine without a model: clock resolution, launch overhead, matmul and copy rates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch

from precisionbench.errors import FOREIGN_ERRORS, one_line
from precisionbench.probes import timing
from precisionbench.probes.timing import UnmeasurableError
from precisionbench.results.dtypes import LONG_NAMES, MATMUL_PRECISIONS
from precisionbench.torchtools.global_state import fp32_precision, has_tf32
from precisionbench.torchtools.timer import Call, Clock, CudaEventClock, HostClock, Timer

# Large enough to fill a device; on a CPU small enough not to take a minute.
_MATMUL_SIZES = ((16 << 30, 8192), (2 << 30, 4096), (0, 2048))  # (memory in bytes, rows)
CPU_MATMUL_ROWS = 1024
_COPY_SHARE = 8  # of the device's memory, at most 1 GiB
_MOST_COPIED = 1 << 30
CPU_COPIED_BYTES = 256 << 20
_WARM_S, _MEASURED_S, _LOAD_S = 0.3, 0.4, 1.0
_LAUNCHES = 200  # few enough to fit into the launch queue
_SPINS = range(2_000, 2_400)  # cycles: 400 lengths a nanosecond or so apart


def clock_step_s(clock: Clock) -> float:
    """The smallest step between two readings of a clock, in seconds.

    Args:
        clock: CUDA events time spins whose lengths differ by single cycles; the host's clock
            has the time of one reading.
    """
    if not isinstance(clock, CudaEventClock):
        return clock.resolution_s
    marks, read = clock.marks(2 * len(_SPINS))
    for cycles, (start, end) in zip(_SPINS, zip(marks[::2], marks[1::2], strict=True), strict=True):
        start()
        torch.cuda._sleep(cycles)
        end()
    durations_s = sorted(set(read()))
    steps_s = (longer - shorter for shorter, longer in itertools.pairwise(durations_s))
    return min(steps_s, default=clock.resolution_s)


def launch_s(device: torch.device) -> float:
    """The host's time to launch one small operation from Python, in seconds.

    Args:
        device: on a CPU this is the time to run it.
    """
    x = torch.ones(64, device=device)

    def launches() -> None:
        for _ in range(_LAUNCHES):
            x.add_(1)

    launches()
    enqueue_s, _ = timing.enqueue_and_wall(HostClock(device), launches, 20)
    return median(enqueue_s) / _LAUNCHES


def rates(clock: Clock, device: torch.device) -> tuple[dict[str, float], dict[str, str]]:
    """The rates of square matmuls, and of copies.

    Args:
        clock: of the device.
        device: where to multiply.

    Returns:
        FLOP/s for `fp32` (IEEE), `tf32`, `fp16`, `bf16`, and byte/s for `bandwidth` (bytes read
        and written); and for each that is missing, why.
    """
    found: dict[str, float] = {}
    unknown: dict[str, str] = {}
    measurements: Mapping[str, Callable[[], float]] = {
        **{rate: partial(_matmul_flops, clock, device, rate) for rate in MATMUL_PRECISIONS},
        "bandwidth": partial(_copied_bytes_per_s, clock, device),
    }
    for rate, measure in measurements.items():
        try:
            found[rate] = measure()
        except UnmeasurableError as exc:
            unknown[rate] = str(exc)
        except FOREIGN_ERRORS as exc:  # a dtype that this device or build does not multiply
            unknown[rate] = one_line(exc)
    return found, unknown


def _matmul_flops(clock: Clock, device: torch.device, rate: str) -> float:
    if rate == "tf32" and not has_tf32(device):
        raise UnmeasurableError("TF32 is not supported on this device")
    size = _matmul_size(device)
    dtype = torch.float32 if rate == "tf32" else getattr(torch, LONG_NAMES[rate])
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with fp32_precision("tf32" if rate == "tf32" else "ieee"):
        return 2 * size**3 / _call_s(clock, lambda: torch.mm(a, b, out=out))


def _memory_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory)


def _matmul_size(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_MATMUL_ROWS
    memory = _memory_bytes(device)
    return next(size for least, size in _MATMUL_SIZES if memory >= least)


def _copied_bytes_per_s(clock: Clock, device: torch.device) -> float:
    count = CPU_COPIED_BYTES
    if device.type == "cuda":
        count = min(_MOST_COPIED, _memory_bytes(device) // _COPY_SHARE)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * count / _call_s(clock, lambda: target.copy_(source))


def load(clock: Clock, device: torch.device) -> None:
    """Keep the device busy with matmuls for a second or so, and wait for it.

    Args:
        clock: of the device.
        device: where to multiply.
    """
    size = _matmul_size(device)
    a = torch.rand(size, size, device=device)
    a = a.half() if device.type == "cuda" else a
    out = torch.empty_like(a)
    timer = Timer(clock)

    def multiply() -> None:
        torch.mm(a, a, out=out)

    timer.block(multiply, timing.samples_for(_once_s(timer, multiply), _LOAD_S, most=5000))


def _once_s(timer: Timer, call: Call) -> float:
    """About how long a call takes, once whatever it needs is loaded."""
    timer.once(call)
    return timer.once(call)[1]


def _call_s(clock: Clock, call: Call) -> float:
    """The median time of a call once it has run for a while."""
    timer = Timer(clock)
    once_s = _once_s(timer, call)
    timer.block(call, timing.samples_for(once_s, _WARM_S))
    return median(timer.block(call, timing.samples_for(once_s, _MEASURED_S)))
