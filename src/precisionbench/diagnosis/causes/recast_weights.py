"""Weights are cast again in every call."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import CAST

_LEAST_SHARE = 0.05
_MOST = 0.5


def detect(context: CauseContext) -> CauseMatch | None:
    """Casts of parameters, buffers and other tensors of a layer, and the time of all casts."""
    facts = context.facts
    weights, whole_s = facts.recast, facts.whole_s
    if weights.count < 1 or not facts.busy_s or weights.time_s / whole_s <= _LEAST_SHARE:
        return None
    share = facts.share(CAST) + weights.dequantising_s / whole_s
    in_codes = weights.codes_s > _MOST * weights.time_s
    return CauseMatch(
        (
            Number("weight casts per call", weights.count, "count"),
            Number("casts per call", facts.casts, "count"),
            Number("time in casts", share, "share"),
        ),
        without(share),
        remedy=_OF_CODES if in_codes else "",
        reason="weights are stored as integers or in 8-bit floating point" if in_codes else "",
        untestable=in_codes,  # a half-precision row casts the same codes
    )


_OF_CODES = (
    "cast the weights to 16 bits once, or use a kernel that reads quantised weights itself "
    "(torch.compile can fuse the cast into the matmul, and torchao has such kernels); quantised "
    "weights that are cast in every call save memory and cost time"
)
CAUSE = Cause(
    "recast-weights",
    "weights are cast in every call",
    "cast the model once (`.half()`), or use one autocast context for all calls; autocast caches "
    "weights only if they require gradients, and not in inference_mode",
    detect,
    "cast-once",
)
