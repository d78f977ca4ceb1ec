"""The device as an observer sees it; tests put one of their own here."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import torch


class DeviceAccess(Protocol):
    """What an observer asks of a device; it waits for it once the script has ended only."""

    def pending(self) -> bool | None:
        """Whether work is left to do; None where the script uses no device."""
        ...

    def mark(self) -> Any:
        """A mark behind all work so far; None where the script uses no device."""
        ...

    def seconds_between(self, first: Any, second: Any) -> float | None:
        """Between the moments at which the device came by two marks; None where it has not."""
        ...

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is in the device's memory."""
        ...

    def follow(self, device: torch.device) -> None:
        """From now on be asked about the device that a model runs on."""
        ...

    def wait(self) -> None:
        """Wait until all work is done."""
        ...


class Cuda:
    """The NVIDIA GPU that the script's models run on, by its current stream."""

    def __init__(self) -> None:
        self._device: torch.device | None = None

    def follow(self, device: torch.device) -> None:
        """From now on be asked about the device that a model runs on."""
        if device.type == "cuda":
            self._device = device

    def pending(self) -> bool | None:
        """Whether the current stream has work left; to ask is no synchronisation."""
        if not self._is_used():
            return None
        with contextlib.suppress(RuntimeError):  # of a device that is lost: the script will see it
            return not torch.cuda.current_stream(self._device).query()
        return None

    def mark(self) -> torch.cuda.Event | None:
        """An event behind all work of the current stream."""
        if not self._is_used():
            return None
        with contextlib.suppress(RuntimeError):
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        return None

    def seconds_between(self, first: Any, second: Any) -> float | None:
        """Between two events that the device has come by."""
        if first is None or second is None:
            return None
        with contextlib.suppress(RuntimeError):
            if first.query() and second.query():
                return float(first.elapsed_time(second)) / 1e3
        return None

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on a GPU."""
        return tensor.is_cuda

    def wait(self) -> None:
        """Wait for all GPUs' work."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize(self._device)

    def _is_used(self) -> bool:
        return torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing()
