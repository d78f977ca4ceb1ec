"""Times regions of a program as they run, each once.

`HostRegions` reads the host's clock, after it has waited for a device where that is wanted.
`EventRegions` never waits: it records a CUDA event on the current stream before and after a region,
and reads them later.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch

_MOST_PENDING = 1024  # pairs of events; with more, those of finished regions are read


class Regions(Protocol):
    """Times regions; `begin` and `end` may be called in any thread.

    Attributes:
        name: of the clock: `cuda_events` or `host`.
        resolution_s: the smallest step of the clock.
    """

    name: str
    resolution_s: float

    def begin(self) -> Any:
        """Begin a region; the token is for `end`."""
        ...

    def end(self, token: Any) -> None:
        """End a region.

        Args:
            token: what `begin` gave.
        """
        ...

    def seconds(self) -> list[float]:
        """The regions so far, in seconds; waits until the device has finished the last one."""
        ...


class HostRegions:
    """The host's clock.

    Args:
        wait: called before each reading: waits for the work of a device.
        now_ns: the clock, in nanoseconds.
    """

    name = "host"
    resolution_s = time.get_clock_info("perf_counter").resolution

    def __init__(
        self,
        wait: Callable[[], object] = lambda: None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._wait, self._now_ns = wait, now_ns
        self._seconds = array("d")

    def begin(self) -> int:
        """Begin a region."""
        self._wait()
        return self._now_ns()

    def end(self, token: int) -> None:
        """End a region.

        Args:
            token: what `begin` gave.
        """
        self._wait()
        self._seconds.append((self._now_ns() - token) * 1e-9)

    def seconds(self) -> list[float]:
        """The regions so far, in seconds."""
        return list(self._seconds)


class EventRegions:
    """CUDA events on the current stream; the host waits for none of them.

    The time of a region is the longer of that between its events and that on the host: where the
    GPU is busy with earlier work, the events of a region that gives it none follow each other at
    once.

    Args:
        device: a CUDA device; None is the current one of each region.
    """

    name = "cuda_events"
    resolution_s = 0.5e-6

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._seconds = array("d")
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event, float]] = deque()

    def _recorded(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def begin(self) -> tuple[torch.cuda.Event, float]:
        """Begin a region."""
        return self._recorded(), time.perf_counter()

    def end(self, token: tuple[torch.cuda.Event, float]) -> None:
        """End a region.

        Args:
            token: what `begin` gave.
        """
        start, begun_s = token
        host_s = time.perf_counter() - begun_s
        self._pending.append((start, self._recorded(), host_s))
        while len(self._pending) > _MOST_PENDING and self._pending[0][1].query():
            self._read_first()

    def seconds(self) -> list[float]:
        """The regions so far, in seconds; waits until the device has finished the last one."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._read_first()
        return list(self._seconds)

    def _read_first(self) -> None:
        start, end, host_s = self._pending.popleft()
        self._seconds.append(max(start.elapsed_time(end) * 1e-3, host_s))
