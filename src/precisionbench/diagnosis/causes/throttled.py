"""The GPU ran below its maximum clock while the row was measured."""

from __future__ import annotations

from precisionbench.analysis.disturbances import BY_DESIGN
from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.statistics import Interval

# Fewer blocks than this are ignored: a GPU that warms up throttles once.
_LEAST_SHARE = 0.2
_LOW_CLOCK = 0.75


def detect(context: CauseContext) -> CauseMatch | None:
    """By the clock and the throttle reasons that the driver reported after each block."""
    states = [block.state for block in context.facts.row.measurement.blocks if block.state]
    if not states:
        return None
    held = [state for state in states if set(state.throttled) - BY_DESIGN]
    gpu = context.data.environment.gpu
    most_hz = gpu.max_sm_clock_hz if gpu else None
    clocks = [state.sm_clock_hz for state in states if state.sm_clock_hz]
    clock = sorted(clocks)[len(clocks) // 2] / most_hz if clocks and most_hz else 1.0
    share = len(held) / len(states)
    capped = sum("sw_power_cap" in state.throttled for state in states) / len(states)
    if share < _LEAST_SHARE and (clock >= _LOW_CLOCK or capped >= _LEAST_SHARE):
        return None
    return CauseMatch(
        (
            Number("throttled blocks", share, "share"),
            Number("clock over maximum clock", clock, "ratio"),
        ),
        Interval(1 / clock, 1.0, 1 / clock),
        reason=", ".join(sorted({name for state in held for name in state.throttled})),
    )


CAUSE = Cause(
    "throttled",
    "the GPU ran below its maximum clock",
    "improve cooling, raise the power limit or choose the fastest power mode (on a Jetson: "
    "nvpmodel, jetson_clocks), and report the clocks with the result",
    detect,
)
