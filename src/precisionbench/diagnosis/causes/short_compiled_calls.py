"""Calls are too short for `torch.compile`: each one pays for checks before compiled code runs."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.compiled import eager_row, is_compiled, share_around
from precisionbench.diagnosis.findings import Number
from precisionbench.results import BackendResult
from precisionbench.statistics import Interval

# Of a longer call the checks (tens of microseconds) are a detail.
_LONGEST_S = 500e-6
_LEAST_SHARE = 0.2


def detect(context: CauseContext) -> CauseMatch | None:
    """A compiled call that takes the host no less time than the same call in eager PyTorch."""
    row = context.facts.row
    if not is_compiled(row) or not row.details.get("graphs") or row.details.get("still_compiling"):
        return None
    eager = eager_row(context.data, row)
    return None if eager is None else _match(context, row, eager)


def _match(context: CauseContext, row: BackendResult, eager: BackendResult) -> CauseMatch | None:
    on_gpu = context.facts.on_gpu
    own_s, eager_s = _host_s(row, on_gpu), _host_s(eager, on_gpu)
    if own_s is None or eager_s is None or own_s < eager_s or own_s > _LONGEST_S:
        return None
    numbers = [
        Number("host time of a compiled call", own_s, "s"),
        Number(f"host time of a call of {eager.backend}", eager_s, "s"),
    ]
    if on_gpu:
        is_limited, best_s = row.launch_bound == "host_bound", row.graph_s or row.device_s
    else:
        around = share_around(context.facts)
        numbers.append(Number("time in checks around compiled code", around, "share"))
        is_limited, best_s = around > _LEAST_SHARE, own_s * (1 - around)
    if not is_limited:
        return None
    gain = row.latency.value / min(best_s or own_s, eager_s)
    return CauseMatch(
        tuple(numbers),
        Interval(gain, 1.0, gain) if gain > 1 else None,
        remedy="" if on_gpu else _ON_A_CPU,
        untestable=not on_gpu,
    )


def _host_s(row: BackendResult, on_gpu: bool) -> float | None:
    """Seconds that a call takes the host."""
    return row.enqueue_s if on_gpu else row.latency.value


_CHECKS = "checks before each compiled call take tens of microseconds"
_ON_A_CPU = f"use a larger batch, or leave the model uncompiled; {_CHECKS}"
CAUSE = Cause(
    "short-compiled-calls",
    "calls are too short for torch.compile to pay",
    "use a larger batch or a CUDA graph (cuda_graph=true, or mode=reduce-overhead), or leave the "
    f"model uncompiled; {_CHECKS}",
    detect,
    "cuda-graph",
    alternatives=("larger-batch",),
)
