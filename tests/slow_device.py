"""A simulated asynchronous device for scripts that tests check without a GPU.

It replaces `scriptcheck.device.CudaMonitor`; `test_gpu_check.py` tests the same on a real GPU. Its
clock counts queued work and no real time, so results do not depend on the load of the machine.
"""

from __future__ import annotations

from time import sleep

_queued_s = 0.0  # work since the start
_done_s = 0.0  # of which the device has done this


def launch(seconds: float) -> None:
    """Queue work on the device, without waiting for it."""
    global _queued_s
    _queued_s += seconds


def synchronize() -> None:
    """Wait until the device is done."""
    sleep(_queued_s - _done_s)
    _finish()


def _finish() -> None:
    global _done_s
    _done_s = _queued_s


class SlowDevice:
    """A `DeviceMonitor` of the simulated device."""

    def pending(self) -> bool:
        return _done_s < _queued_s

    def marker(self) -> tuple[float, float]:
        return _queued_s, _done_s

    def elapsed_s(self, start: tuple[float, float], end: tuple[float, float]) -> float | None:
        return end[0] - start[0] if end[0] <= _done_s else None

    def pending_s(self, marker: tuple[float, float]) -> float:
        queued_s, done_s = marker
        return queued_s - done_s

    def holds(self, tensor) -> bool:
        return not hasattr(tensor, "on_host")

    def select(self, device) -> None:
        pass

    def synchronize(self) -> None:
        _finish()
