"""Times calls one by one, to find those that cost more than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from precisionbench.statistics.periodic import periodic, slow_share
from precisionbench.torchtools.timer import Call, Clock

# At first as many calls as this, or as many as this time allows.
_CALLS, _TIME_S = 64, 0.1
# Where some of them are slow, as many calls as it takes to see a period.
_MOST_CALLS, _MOST_TIME_S = 512, 0.5
_MORE_CALLS = 8
_LEAST_SHARE = 0.02


def slow_calls(call: Call, clock: Clock) -> dict[str, Any]:
    """Whether every Nth call is slow; a field of `Evidence`.

    Args:
        call: one forward pass, warm.
        clock: the host's clock of the device.
    """
    return {"slow_calls": periodic([_times_s(_timed(call, clock))])}


def _timed(call: Call, clock: Clock) -> Callable[[], float]:
    def timed() -> float:
        (start, end), durations = clock.marks(2)
        start()
        call()
        end()
        return durations()[0]

    return timed


def _times_s(timed: Callable[[], float]) -> list[float]:
    """Seconds of consecutive calls: more of them where some are slow and no period is known."""
    times = [timed()]
    while len(times) < _CALLS and sum(times) < _TIME_S:
        times.append(timed())
    while len(times) < _MOST_CALLS and sum(times) < _MOST_TIME_S and _is_unclear(times):
        times += [timed() for _ in range(_MORE_CALLS) if sum(times) < _MOST_TIME_S]
    return times


def _is_unclear(times: list[float]) -> bool:
    return slow_share(times) > _LEAST_SHARE and periodic([times]) is None
