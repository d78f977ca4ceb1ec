"""The time to copy the inputs to the device and the outputs back, in a pass of its own.

The latency leaves it out; trtexec and MLPerf can have it inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch

from precisionbench.errors import FOREIGN_ERRORS, one_line
from precisionbench.probes.timing import UnmeasurableError, samples_for
from precisionbench.torchtools.timer import Call, CudaEventClock, Timer

_PASS_S = 0.05  # seconds in each direction


def to_device(clock: CudaEventClock, tensors: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """The time of copying tensors like these from pinned host memory to the device, in seconds.

    Args:
        clock: CUDA events.
        tensors: of one call; wherever they are, only their shapes and dtypes matter.

    Raises:
        UnmeasurableError: there is no tensor, or no memory for copies.
    """
    return _timed(clock, tensors, to_host=False)


def to_host(clock: CudaEventClock, tensors: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """The time of copying tensors like these from the device to pinned host memory, in seconds."""
    return _timed(clock, tensors, to_host=True)


def _timed(
    clock: CudaEventClock, tensors: Sequence[torch.Tensor], to_host: bool
) -> tuple[float, ...]:
    if not any(tensor.numel() for tensor in tensors):
        raise UnmeasurableError("there is no tensor to transfer")
    try:
        copy = _copies(clock.device, tensors, to_host)
        timer = Timer(clock)
        once_s = median(timer.block(copy, 3, settle_calls=1))
        calls = timer.calls_per_sample(once_s)
        return timer.block(copy, samples_for(once_s * calls, _PASS_S), calls, settle_calls=2)
    except FOREIGN_ERRORS as exc:
        raise UnmeasurableError(f"copies could not be timed ({one_line(exc)})") from exc


def _copies(device: torch.device, tensors: Sequence[torch.Tensor], to_host: bool) -> Call:
    """A call that enqueues all copies and waits for none."""
    on_host = [torch.zeros(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    on_device = [torch.zeros(t.shape, dtype=t.dtype, device=device) for t in tensors]
    targets, sources = (on_host, on_device) if to_host else (on_device, on_host)
    pairs = list(zip(targets, sources, strict=True))

    def copy() -> None:
        for target, source in pairs:
            target.copy_(source, non_blocking=True)

    return copy
