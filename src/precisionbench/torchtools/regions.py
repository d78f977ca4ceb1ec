"""Times regions of a program as they run, where nothing may be repeated and nothing may wait.

On a GPU, `EventRegions` records a CUDA event on the current stream before and after a region, and
reads them later. `HostRegions` reads the host's clock.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
_MOST_PENDING = 1024  # pairs of events; with more, those of finished regions are read


class Regions(Protocol):
    """Times regions; `begin` and `end` may be called in any thread.

    Attributes:
        name: of the clock: `cuda_events` or `host`.
        resolution_s: the smallest step of the clock.
    """

    name: str
    resolution_s: float

    def begin(self) -> object:
        """Begin a region; the token is for `end`."""
        ...

    def end(self, token: object) -> None:
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

    def begin(self) -> object:
        """Begin a region."""
        self._wait()
        return self._now_ns()

    def end(self, token: object) -> None:
        """End a region."""
        self._wait()
        now_ns = self._now_ns()
        assert isinstance(token, int)
        self._seconds.append((now_ns - token) * 1e-9)

    def seconds(self) -> list[float]:
        """The regions so far, in seconds."""
        return list(self._seconds)


class EventRegions:
    """CUDA events on the current stream; the host waits for none of them.

    Args:
        device: a CUDA device; None is the current one of each region.
    """

    name = "cuda_events"
    resolution_s = 0.5e-6

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._seconds = array("d")
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def _recorded(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def begin(self) -> object:
        """Begin a region."""
        return self._recorded()

    def end(self, token: object) -> None:
        """End a region."""
        assert isinstance(token, torch.cuda.Event)
        self._pending.append((token, self._recorded()))
        while len(self._pending) > _MOST_PENDING and self._pending[0][1].query():
            self._read_first()

    def seconds(self) -> list[float]:
        """The regions so far, in seconds; waits until the device has finished the last one."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._read_first()
        return list(self._seconds)

    def _read_first(self) -> None:
        start, end = self._pending.popleft()
        self._seconds.append(start.elapsed_time(end) * 1e-3)
