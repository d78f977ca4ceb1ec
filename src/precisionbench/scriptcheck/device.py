"""Queries the device of a script without synchronizing it."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import torch


class DeviceMonitor(Protocol):
    """What the observer needs of a device; only `synchronize` blocks, once the script has ended."""

    def pending(self) -> bool | None:
        """Whether the device has work pending; None if the script uses no device."""
        ...

    def marker(self) -> Any:
        """A marker behind all work launched so far; None if the script uses no device."""
        ...

    def elapsed_s(self, start: Any, end: Any) -> float | None:
        """Time between two markers on the device; None if it has not reached both."""
        ...

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is in the device's memory."""
        ...

    def select(self, device: torch.device) -> None:
        """Query this device from now on: a model runs on it."""
        ...

    def synchronize(self) -> None:
        """Wait until all work is done."""
        ...


class CudaMonitor:
    """The current stream of the NVIDIA GPU that the script's models run on."""

    def __init__(self) -> None:
        self._device: torch.device | None = None

    def select(self, device: torch.device) -> None:
        """Query this device from now on, if it is a GPU."""
        if device.type == "cuda":
            self._device = device

    def pending(self) -> bool | None:
        """Whether the current stream has work pending; the query does not synchronize."""
        if not self._is_used():
            return None
        with contextlib.suppress(RuntimeError):  # device lost: the script will get the error
            return not torch.cuda.current_stream(self._device).query()
        return None

    def marker(self) -> torch.cuda.Event | None:
        """An event behind all work of the current stream."""
        if not self._is_used():
            return None
        with contextlib.suppress(RuntimeError):
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        return None

    def elapsed_s(self, start: Any, end: Any) -> float | None:
        """Time between two events that the device has reached."""
        if start is None or end is None:
            return None
        with contextlib.suppress(RuntimeError):
            if start.query() and end.query():
                return float(start.elapsed_time(end)) / 1e3
        return None

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on a GPU."""
        return tensor.is_cuda

    def synchronize(self) -> None:
        """Wait until the GPU has done all work."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize(self._device)

    def _is_used(self) -> bool:
        return torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing()
