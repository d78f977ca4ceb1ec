"""Times calls one by one, to find those that cost more than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from precisionbench.statistics.periodic import periodic, slow_share
from precisionbench.torchtools.timer import Call, HostClock

# At first as many calls as this, or as many as this time allows.
_CALLS, _TIME_S = 64, 0.1
# Where some of them are slow, as many calls as it takes to see a period.
_MOST_CALLS, _MOST_TIME_S = 512, 1.0
_LEAST_SHARE = 0.03


def slow_calls(call: Call, call_s: float, device: torch.device) -> dict[str, Any]:
    """Whether every Nth call is slow; a field of `Evidence`.

    Args:
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        device: where it runs.
    """
    return {"slow_calls": periodic([_times_s(_timed(call, HostClock(device)), call_s)])}


def _timed(call: Call, clock: HostClock) -> Callable[[], float]:
    def timed() -> float:
        (start, end), durations = clock.marks(2)
        start()
        call()
        end()
        return durations()[0]

    return timed


def _times_s(timed: Callable[[], float], call_s: float) -> list[float]:
    """Seconds of consecutive calls: more of them where some are slow and no period is known."""
    first = max(1, min(_CALLS, int(_TIME_S / call_s)))
    times = [timed() for _ in range(first)]
    most = min(_MOST_CALLS, int(_MOST_TIME_S / call_s))
    while len(times) < most and slow_share(times) > _LEAST_SHARE and periodic([times]) is None:
        times += [timed() for _ in range(min(first, most - len(times)))]
    return times
