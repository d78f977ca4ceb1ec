"""Warm-up and blocks of one prepared backend, and when there are enough of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median

from precisionbench.launchers.session import Session
from precisionbench.results import Measurement
from precisionbench.statistics import median_interval

# On an H200 the first block after it was within 0.22 % of the last (docs/hardware.md).
_WARMUP_S = 1.0
_WARMUP_CALLS = 3
_WARMUP_BLOCK = 100  # calls before the clock is looked at again
_WARMUP_SHARE = 0.25  # of the budget, at most
_BLOCK_S = 0.05
_BLOCK_SAMPLES = 5
_SETTLE_CALLS = 2
_MIN_ROUNDS = 12
_MAX_ROUNDS = 30
_TARGET_HALF_WIDTH = 0.01  # of the median


def measure(session: Session, budget_s: float) -> Measurement:
    """Warm a session up and time blocks until the interval is narrow enough.

    Args:
        session: a prepared backend.
        budget_s: seconds for all of it.

    Returns:
        The raw times.
    """
    end_s = time.monotonic() + budget_s
    warmup_calls, call_s = _warm_up(session, min(_WARMUP_S, budget_s * _WARMUP_SHARE))
    calls_per_sample = session.timer.calls_per_sample(call_s)
    samples = _block_samples(call_s * calls_per_sample, end_s - time.monotonic())
    settle = _SETTLE_CALLS if session.timer.clock.name == "cuda_events" else 0
    blocks: list[tuple[float, ...]] = []
    ended_by = None
    while ended_by is None:
        blocks.append(session.block(samples, calls_per_sample, settle))
        ended_by = _end_of(blocks, end_s)
    return Measurement(
        clock=session.timer.clock.name,
        resolution_s=session.timer.clock.resolution_s,
        build_s=session.build_s,
        first_call_s=session.first_call_s,
        warmup_calls=warmup_calls,
        calls_per_sample=calls_per_sample,
        blocks=tuple(blocks),
        ended_by=ended_by,
    )


def _warm_up(session: Session, duration_s: float) -> tuple[int, float]:
    """Call until the time is over, and 3 times at least unless that takes twice the time.

    Returns:
        The calls made, and the median seconds of the last ones. They are timed in blocks, because
        a single drained call would take longer than those that are to be planned for.
    """
    end_s = time.monotonic() + duration_s
    calls, call_s = 0, session.first_call_s
    while (now_s := time.monotonic()) < end_s or (
        calls < _WARMUP_CALLS and now_s < end_s + duration_s
    ):
        samples = max(1, min(_WARMUP_BLOCK, math.ceil(0.25 * duration_s / call_s)))
        calls += samples
        call_s = median(session.block(samples, 1, 0))
    return calls, call_s


def _block_samples(sample_s: float, remaining_s: float) -> int:
    """As many as a good block has, fewer where the budget would not hold 12 such blocks."""
    wanted = max(_BLOCK_SAMPLES, math.ceil(_BLOCK_S / sample_s))
    affordable = int(remaining_s / (_MIN_ROUNDS * sample_s))
    return max(1, min(wanted, affordable))


def _end_of(blocks: Sequence[Sequence[float]], end_s: float) -> str | None:
    """What ends the measurement now, if anything does."""
    if len(blocks) >= _MIN_ROUNDS:
        if median_interval(blocks).relative_half_width <= _TARGET_HALF_WIDTH:
            return "target"
        if len(blocks) >= _MAX_ROUNDS:
            return "rounds"
    return "budget" if time.monotonic() >= end_s else None


def few_blocks(measurement: Measurement) -> tuple[str, ...]:
    """What a reader must know of a measurement that the budget cut short."""
    count = len(measurement.blocks)
    if count >= 6:  # the fewest that give a 95 % interval
        return ()
    return (
        f"only {count} of {_MIN_ROUNDS} blocks fitted in the time, so the interval is merely the "
        "range seen; give a larger budget or a smaller batch",
    )
