"""Queries the device of a script without synchronizing it."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import attrs
import torch

from precisionbench.scriptcheck.real_clock import perf_counter


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

    def pending_s(self, marker: Any) -> float | None:
        """Time that the device still needed, when a marker was set, to reach it."""
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


@attrs.frozen(eq=False)
class _Marker:
    """An event behind the work of a stream.

    Attributes:
        event: the event.
        at_s: the host's clock when it was recorded.
        idle: the last marker, up to this one, that was recorded on an idle stream; the device
            reached that one when the host recorded it. None if there is none.
    """

    event: torch.cuda.Event
    at_s: float
    idle: _Marker | None


class CudaMonitor:
    """The current stream of the NVIDIA GPU that the script's models run on."""

    def __init__(self) -> None:
        self._device: torch.device | None = None
        self._idle: _Marker | None = None  # the last marker that was recorded on an idle stream

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

    def marker(self) -> _Marker | None:
        """An event behind all work of the current stream."""
        if not self._is_used():
            return None
        with contextlib.suppress(RuntimeError):
            stream = torch.cuda.current_stream(self._device)
            is_idle = stream.query()
            event = torch.cuda.Event(enable_timing=True)
            at_s = perf_counter()
            event.record(stream)
            marker = _Marker(event, at_s, self._idle)
            if is_idle:
                self._idle = marker
            return marker
        return None

    def elapsed_s(self, start: Any, end: Any) -> float | None:
        """Time between two markers that the device has reached."""
        if start is None or end is None:
            return None
        with contextlib.suppress(RuntimeError):
            if start.event.query() and end.event.query():
                return float(start.event.elapsed_time(end.event)) / 1e3
        return None

    def pending_s(self, marker: Any) -> float | None:
        """Time from the recording of a marker until the device reached it.

        Host and device have no common clock, so both times count from a moment when the device was
        idle: the last one before the marker, or the end of the script.
        """
        if marker is None:
            return None
        idle: _Marker | None = marker.idle
        if idle is not None:
            since_idle_s = self.elapsed_s(idle, marker)
            host_s = marker.at_s - idle.at_s
            return None if since_idle_s is None else max(0.0, since_idle_s - host_s)
        until_idle_s = self.elapsed_s(marker, self._idle)
        if self._idle is None or until_idle_s is None:
            return None
        return max(0.0, self._idle.at_s - float(marker.at_s) - until_idle_s)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on a GPU."""
        return tensor.is_cuda

    def synchronize(self) -> None:
        """Wait until the GPU has done all work."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize(self._device)
            self.marker()
            torch.cuda.synchronize(self._device)

    def _is_used(self) -> bool:
        return torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing()
