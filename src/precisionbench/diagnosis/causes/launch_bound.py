"""Launch-bound: the host launches kernels more slowly than the GPU runs them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results import BackendResult
from precisionbench.statistics import Interval, quantile_interval

# A smaller gain is not reported; a CUDA graph replay that gains this much confirms the cause.
_LEAST_GAIN = 1.1


def detect(context: CauseContext) -> CauseMatch | None:
    """Confirmed by the CUDA graph replay, which was measured with the row."""
    row = context.facts.row
    if row.launch_bound != "host_bound" or row.enqueue_s is None:
        return None
    factor = _gain(row)
    if factor.value < _LEAST_GAIN:
        return None
    numbers = [Number("launch time on the host per call", row.enqueue_s, "s")]
    if row.device_s is not None:
        numbers.append(Number("GPU time per call", row.device_s, "s"))
    if context.facts.evidence.launches:
        numbers.append(Number("kernel launches per call", context.facts.evidence.launches, "count"))
    if row.graph_s is not None:
        numbers.append(Number("CUDA graph replay", row.graph_s, "s"))
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
    "launch-bound",
    "use a larger batch, a CUDA graph or torch.compile(mode='reduce-overhead'); "
    "a lower precision gives almost nothing here",
    detect,
    "cuda-graph",
    alternatives=("larger-batch",),
)
