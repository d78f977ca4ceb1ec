"""All passes over one prepared call, in the order in which they disturb each other least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType

import torch

from precisionbench.probes import timing, transfers
from precisionbench.probes.energy import device_power_w, energy_j
from precisionbench.probes.graphs import Replay
from precisionbench.probes.memory import peak_bytes
from precisionbench.results import Passes
from precisionbench.torchtools.tensors import walk
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock

NO_TIME = "left out: the budget was too small"
NOT_WANTED = "this measurement does not include it"
_PASS_S = 0.2  # seconds for each pass; all together take about 1.5 s (docs/measuring.md)
# LoadGen wants at least 64 queries one after another (precisionbench.rules.mlperf).
_MAX_WALL_SAMPLES = 200
# The L2 cache of an H100; the size is assumed where the GPU does not report its own.
_L2_BYTES = 50 << 20
_FLUSHES = 2  # times the L2 cache's size, so that nothing of it survives


def take_passes(
    clock: CudaEventClock,
    call: Call,
    call_s: float,
    labels: tuple[str, ...],
    capture: bool,
    inputs: Sequence[torch.Tensor],
    leave_out: Mapping[str, str] = MappingProxyType({}),
) -> Passes:
    """Device, enqueue and wall time, memory, energy, transfers, and CUDA-graph replay of one call.

    Args:
        clock: CUDA events.
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        labels: why CUDA events cannot time it; empty where they can.
        capture: also try a CUDA graph.
        inputs: tensors that would be brought to the device for the call.
        leave_out: why passes are not taken, by their names of `PASSES`.
    """
    unknown = {**leave_out} | _reasons_to_skip(call, labels, capture)
    skipped = frozenset(unknown)

    def taken(name: str, take: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        return () if name in skipped else timing.or_unknown(unknown, name, take)

    # One after another, the graph last: a capture empties torch's cache, and one that fails can
    # spoil the process.
    allocated, reserved = _peak_bytes(clock.device, call, unknown)
    energy = taken("energy", lambda: (_energy_j(clock, call, call_s),))
    outputs = [tensor for _, tensor in walk(call())]
    enqueue_s, wall_s = ((), ()) if "wall" in skipped else _host_times_s(clock, call, call_s)
    host_s = median(enqueue_s) if enqueue_s else call_s
    device_s = taken("device", lambda: timing.primed(clock, call, call_s, host_s, _PASS_S))
    to_device_s = taken("transfers", lambda: transfers.to_device(clock, inputs))
    to_host_s = taken("transfers", lambda: transfers.to_host(clock, outputs))
    graph_s = taken("graph", lambda: timing.graph_replay(clock, call, _PASS_S))
    return Passes(
        enqueue_s=enqueue_s,
        wall_s=wall_s,
        device_s=device_s,
        to_device_s=to_device_s,
        to_host_s=to_host_s,
        graph_s=graph_s,
        unknown=unknown,
        labels=labels,
        energy_j=energy[0] if energy else None,
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
    )


def _reasons_to_skip(call: Call, labels: tuple[str, ...], capture: bool) -> dict[str, str]:
    """Why a pass is not taken, for each that is not."""
    reasons: dict[str, str] = {}
    if labels:
        reasons["device"] = f"CUDA events do not cover the work of the call ({', '.join(labels)})"
    if isinstance(call, Replay):
        reasons["graph"] = "the call is already a CUDA-graph replay"
    elif not capture:
        reasons["graph"] = "not tried in this process: a failed capture could break later rows"
    return reasons


def _peak_bytes(
    device: torch.device, call: Call, unknown: dict[str, str]
) -> tuple[int | None, int | None]:
    """Allocated and reserved bytes; a graph's memory is all allocated when it is captured."""
    allocated, reserved = peak_bytes(device, call)
    if isinstance(call, Replay):
        allocated, unknown["peak_allocated"] = None, "a CUDA graph keeps its memory reserved"
    return allocated, reserved


def _host_times_s(
    clock: CudaEventClock, call: Call, call_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    samples = timing.samples_for(call_s, _PASS_S, most=_MAX_WALL_SAMPLES)
    return timing.enqueue_and_wall(HostClock(clock.device), call, samples)


def _energy_j(clock: CudaEventClock, call: Call, call_s: float) -> float:
    return energy_j(clock, call, call_s, lambda run: device_power_w(clock.device, run))


def l2_flush(device: torch.device) -> Call:
    """A call that enqueues a write over twice the L2 cache, without waiting for it.

    Args:
        device: a CUDA device.
    """
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or _L2_BYTES
    buffer = torch.empty(_FLUSHES * size, dtype=torch.int8, device=device)
    return buffer.zero_
