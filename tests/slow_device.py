"""A device that works on its own time, for a script that `precisionbench check` watches here.

It stands where `checking.device.Cuda` does; `test_gpu_check.py` shows the same on a real GPU.
"""

from __future__ import annotations

from time import perf_counter, sleep  # imported before the clocks are watched

_busy_until = 0.0


def launch(seconds: float) -> None:
    """Give the device something to do, and come back at once."""
    global _busy_until
    _busy_until = max(_busy_until, perf_counter()) + seconds


def synchronize() -> None:
    """Come back when the device is done."""
    sleep(max(0.0, _busy_until - perf_counter()))


class SlowDevice:
    """What the observer asks."""

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
