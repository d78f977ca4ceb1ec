"""All passes over one prepared call, in the order in which they disturb least."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from precisionbench.probes import timing, transfers
from precisionbench.probes.energy import device_joules, energy_j
from precisionbench.probes.graphs import Replay
from precisionbench.probes.memory import peak_bytes
from precisionbench.results.records import Passes
from precisionbench.torchtools.tensors import walk
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock

_PASS_S = 0.3  # seconds for each pass
# LoadGen wants at least 64 queries one after another (precisionbench.rules.mlperf).
_MAX_WALL_SAMPLES = 200
# An H100 has 50 MB of L2; what a GPU does not tell is taken to be that.
_L2_BYTES = 50 << 20
_FLUSHES = 2  # times the L2 cache's size, so that nothing of it survives


def take_passes(
    clock: CudaEventClock,
    call: Call,
    call_s: float,
    labels: tuple[str, ...],
    capture: bool,
    inputs: Sequence[torch.Tensor],
) -> Passes:
    """Device, enqueue and wall time, memory, energy, transfers, and CUDA-graph replay of one call.

    Args:
        clock: CUDA events.
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        labels: what qualification said of it.
        capture: also try a CUDA graph.
        inputs: tensors that would be brought to the device for the call.
    """
    samples = timing.samples_for(call_s, _PASS_S)
    host, unknown = HostClock(clock.device), dict[str, str]()
    if labels:
        unknown["device"] = f"events on our stream do not see its work ({', '.join(labels)})"
    if isinstance(call, Replay):
        capture, unknown["graph"] = False, "the call is the replay of a CUDA graph already"
    elif not capture:
        unknown["graph"] = "not tried in this process: a failed capture could spoil later rows"
    allocated, reserved = peak_bytes(clock.device, call)
    if isinstance(call, Replay):  # a graph's memory is all taken when it is captured
        allocated, unknown["peak_allocated"] = None, "a CUDA graph keeps its memory reserved"
    energy = timing.or_unknown(unknown, "energy", lambda: (_energy_j(clock, call, call_s),))
    wall_samples = timing.samples_for(call_s, _PASS_S, most=_MAX_WALL_SAMPLES)
    outputs = [tensor for _, tensor in walk(call())]
    return Passes(
        enqueue_s=timing.enqueue(host, call, samples),
        wall_s=timing.wall(host, call, wall_samples),
        device_s=timing.or_unknown(unknown, "device", lambda: timing.primed(clock, call, samples))
        if not labels
        else (),
        to_device_s=timing.or_unknown(
            unknown, "transfers", lambda: transfers.to_device(clock, inputs)
        ),
        to_host_s=timing.or_unknown(
            unknown, "transfers", lambda: transfers.to_host(clock, outputs)
        ),
        graph_s=timing.or_unknown(
            unknown, "graph", lambda: timing.graph_replay(clock, call, samples)
        )
        if capture
        else (),
        unknown=unknown,
        labels=labels,
        energy_j=energy[0] if energy else None,
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
    )


def _energy_j(clock: CudaEventClock, call: Call, call_s: float) -> float:
    return energy_j(clock, call, call_s, lambda run: device_joules(clock.device, run))


def l2_flush(device: torch.device) -> Call:
    """What enqueues a write over twice the L2 cache and does not wait for it.

    Args:
        device: a CUDA device.
    """
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or _L2_BYTES
    buffer = torch.empty(_FLUSHES * size, dtype=torch.int8, device=device)
    return buffer.zero_
