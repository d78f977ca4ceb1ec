"""A compiled row runs part of its model outside of compiled code."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.compiled import (
    has_graphs,
    is_compiled,
    share_around,
    share_outside,
)
from precisionbench.diagnosis.findings import Number
from precisionbench.results import BackendResult
from precisionbench.safe_text import without_addresses

_LEAST_SHARE = 0.05
_OF_NUMBERS = (
    "replace .item(), .tolist(), int() and float() of tensors by tensor operations, or set "
    "torch._dynamo.config.capture_scalar_outputs = True"
)
# Words of TorchDynamo's reasons (torch 2.6 to 2.14), and what to do about such a break.
_REMEDIES = {
    "torch.compiler.disable": (
        "remove torch.compiler.disable, which keeps a function out of compiled code, or call the "
        "function outside of forward"
    ),
    "item()": _OF_NUMBERS,
    "_local_scalar_dense": _OF_NUMBERS,
    "ata-dependent": (
        "replace branches and loops on tensor values by tensor operations (torch.where, torch.cond)"
    ),
    "ynamic shape operator": (
        "replace operations whose output shape depends on values (nonzero, boolean indices) by "
        "masks, or set torch._dynamo.config.capture_dynamic_output_shape_ops = True"
    ),
    "torch.jit": "replace scripted modules by the modules that they were made of",
    "`print`": "remove print from forward",
}
_FULLGRAPH = "fullgraph=true raises an error at the first break and names its line"


def detect(context: CauseContext) -> CauseMatch | None:
    """Breaks that TorchDynamo counted, and the time that they leave outside of compiled code.

    Breaks that cost almost nothing, such as one between two large matmuls, give no finding.
    """
    facts, row = context.facts, context.facts.row
    if not is_compiled(row) or "graphs" not in row.details:
        return None
    graphs, breaks, skipped = (
        _count(row, name) for name in ("graphs", "graph_breaks", "skipped_frames")
    )
    numbers = (
        Number("compiled graphs", graphs, "count"),
        Number("graph breaks", breaks, "count"),
        Number("functions that were not compiled", skipped, "count"),
    )
    if not graphs:
        return CauseMatch(numbers, proof="counted", reason=_reasons(row), remedy=_remedy(row))
    if not (breaks or skipped) or not has_graphs(facts):
        return None
    share = share_outside(facts) + share_around(facts)
    if share <= _LEAST_SHARE:
        return None
    outside = Number("time outside of compiled graphs", share, "share")
    return CauseMatch(
        (outside, *numbers), without(share), reason=_reasons(row), remedy=_remedy(row)
    )


def _count(row: BackendResult, name: str) -> int:
    """A count that the row reports of its engine; 0 without one."""
    value = row.details.get(name)
    return value if isinstance(value, int) else 0


def _reasons(row: BackendResult) -> str:
    """The first reasons that TorchDynamo gave."""
    found = [row.details.get(name) for name in ("graph_break_reasons", "skip_reasons")]
    texts = dict.fromkeys(str(one) for some in found if isinstance(some, list) for one in some)
    return without_addresses("; ".join(texts))


def _remedy(row: BackendResult) -> str:
    """What to do about the reasons that are known; empty where none is."""
    reasons = _reasons(row)
    found = dict.fromkeys(remedy for words, remedy in _REMEDIES.items() if words in reasons)
    return "; ".join([*found, _FULLGRAPH]) if found else ""


CAUSE = Cause(
    "graph-breaks",
    "part of the compiled model runs outside of compiled code",
    "remove what breaks the graph (.item(), print, branches on tensor values, unsupported "
    f"functions); {_FULLGRAPH}",
    detect,
)
