"""A simulated asynchronous device for scripts that `precisionbench check` observes.

It replaces `scriptcheck.device.Cuda`; `test_gpu_check.py` shows the same on a real GPU.
"""

from __future__ import annotations

from time import perf_counter, sleep  # imported before the observer replaces the clocks

_busy_until = 0.0


def launch(seconds: float) -> None:
    """Start work on the device and return at once."""
    global _busy_until
    _busy_until = max(_busy_until, perf_counter()) + seconds


def synchronize() -> None:
    """Wait until the device has finished."""
    sleep(max(0.0, _busy_until - perf_counter()))


class SlowDevice:
    """The interface of a device that the observer uses."""

    def pending(self) -> bool:
        return perf_counter() < _busy_until

    def mark(self) -> float:
        return max(_busy_until, perf_counter())

    def seconds_between(self, first: float, second: float) -> float:
        return second - first

    def holds(self, tensor) -> bool:
        return not hasattr(tensor, "on_host")

    def follow(self, device) -> None:
        pass

    def wait(self) -> None:
        synchronize()
