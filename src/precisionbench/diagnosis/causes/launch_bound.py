"""The host takes longer to launch the work than the device to do it."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.records import BackendResult
from precisionbench.statistics import Interval, quantile_interval

# Less is not worth naming, and a replay without launch cost must win this much to prove it.
_LEAST_GAIN = 1.1


def look(scene: CauseContext) -> CauseMatch | None:
    """Proved by the replay of its CUDA graph, which has been measured already."""
    row = scene.facts.row
    if row.launch_bound != "host_bound" or row.enqueue_s is None:
        return None
    factor = _gain(row)
    if factor.value < _LEAST_GAIN:
        return None
    numbers = [Number("the host's time of a call", row.enqueue_s, "s")]
    if row.device_s is not None:
        numbers.append(Number("the device's time of a call", row.device_s, "s"))
    if scene.facts.evidence.launches:
        numbers.append(Number("kernels launched in a call", scene.facts.evidence.launches, "count"))
    if row.graph_s is not None:
        numbers.append(Number("replayed as a CUDA graph", row.graph_s, "s"))
    proved = row.graph_s is not None and factor.low > _LEAST_GAIN
    return CauseMatch(tuple(numbers), factor, "graph-replay" if proved else "")


def _gain(row: BackendResult) -> Interval:
    """Of a replay; where there is none, at most that of a host which takes no time."""
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
    look,
    "cuda-graph",
    alternatives=("larger-batch",),
)
