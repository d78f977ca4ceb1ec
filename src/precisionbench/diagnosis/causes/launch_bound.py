"""The host takes longer to launch the kernels than the device to run them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results import BackendResult
from precisionbench.statistics import Interval, quantile_interval

# A smaller gain is not reported; the replay without launch cost must gain this much as a proof.
_LEAST_GAIN = 1.1


def detect(context: CauseContext) -> CauseMatch | None:
    """Proved by the CUDA graph replay, which has been measured already."""
    row = context.facts.row
    if row.launch_bound != "host_bound" or row.enqueue_s is None:
        return None
    factor = _gain(row)
    if factor.value < _LEAST_GAIN:
        return None
    numbers = [Number("the host's time of a call", row.enqueue_s, "s")]
    if row.device_s is not None:
        numbers.append(Number("the device's time of a call", row.device_s, "s"))
    if context.facts.evidence.launches:
        numbers.append(
            Number("kernels launched in a call", context.facts.evidence.launches, "count")
        )
    if row.graph_s is not None:
        numbers.append(Number("replayed as a CUDA graph", row.graph_s, "s"))
    proved = row.graph_s is not None and factor.low > _LEAST_GAIN
    return CauseMatch(tuple(numbers), factor, "graph-replay" if proved else "")


def _gain(row: BackendResult) -> Interval:
    """The gain of a replay; where there is none, the gain without any host time."""
    latency = row.latency
    if row.graph_s is None:
        gain = max(1.0, latency.value / (row.device_s or latency.value))
        return Interval(gain, 1.0, gain)
    replay = quantile_interval([list(row.passes.graph_s)])
    return Interval(
        latency.value / row.graph_s, latency.low / replay.high, latency.high / replay.low
    )


CAUSE = Cause(
    "launch-bound",
    "C2",
    "bound by the host, which launches kernels more slowly than the device runs them",
    "use a larger batch, a CUDA graph or torch.compile(mode='reduce-overhead'); "
    "precision hardly matters here",
    detect,
    "cuda-graph",
    alternatives=("larger-batch",),
)
