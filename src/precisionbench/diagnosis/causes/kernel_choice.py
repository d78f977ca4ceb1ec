"""Convolutions run on CUDA cores although tensor cores could run them."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.work import MatrixWork

_LEAST_SHARE = 0.1


def detect(context: CauseContext) -> CauseMatch | None:
    """Kernels known to use CUDA cores, of convolutions that tensor cores could run.

    Matmuls with few rows are left out, because they are memory-bound.
    """
    facts = context.facts
    if not context.has_half_kernels:
        return None
    if facts.row.launch_bound == "host_bound":  # kernels do not limit the latency
        return None
    spent_s = sum(w.cuda_core_s for w in facts.work if w.is_convolution and _is_eligible(w))
    share = spent_s / facts.busy_s
    if share <= _LEAST_SHARE:
        return None
    cudnn = context.data.environment.cudnn or ""
    return CauseMatch(
        (
            Number("time in such convolutions", share, "share"),
            Number("GEMM/conv time on tensor cores", facts.tensor_core_share, "share"),
        ),
        reason=f"cuDNN {cudnn}" if cudnn else "",
    )


def _is_eligible(work: MatrixWork) -> bool:
    return not work.obstacles and not work.is_stem


CAUSE = Cause(
    "kernel-choice",
    "convolutions on CUDA cores that tensor cores could run",
    "let cuDNN benchmark its algorithms (cudnn_benchmark=true), or use another cuDNN version",
    detect,
    "cudnn-benchmark",
)
