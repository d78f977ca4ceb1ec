"""A compiled row runs part of its model outside of compiled code."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.compiled import (
    has_regions,
    is_compiled,
    share_of_checks,
    share_outside,
)
from precisionbench.diagnosis.findings import Number
from precisionbench.results import BackendResult

_LEAST_SHARE = 0.05


def detect(context: CauseContext) -> CauseMatch | None:
    """Breaks that TorchDynamo counted, and the time that they leave outside of compiled code.

    Breaks that cost almost nothing, such as one between two large matmuls, are no finding.
    """
    facts, row = context.facts, context.facts.row
    breaks = _count(row, "graph_breaks") + _count(row, "skipped_frames")
    graphs = _count(row, "graphs")
    if not is_compiled(row) or "graphs" not in row.details or (graphs and not breaks):
        return None
    numbers = [Number("graph breaks", breaks, "count"), Number("compiled graphs", graphs, "count")]
    if not graphs:
        return CauseMatch(tuple(numbers), proof="counted", reason=_reasons(row))
    if not has_regions(facts):
        return None
    outside = share_outside(facts)
    share = outside + share_of_checks(facts)
    if share <= _LEAST_SHARE and row.launch_bound != "host_bound":
        return None
    numbers.append(Number("time outside of compiled code", outside, "share"))
    factor = None if row.launch_bound == "host_bound" else without(share)
    return CauseMatch(tuple(numbers), factor, reason=_reasons(row))


def _count(row: BackendResult, name: str) -> int:
    """A count that the row reports of its engine; 0 without one."""
    value = row.details.get(name)
    return value if isinstance(value, int) else 0


def _reasons(row: BackendResult) -> str:
    """The first reasons that TorchDynamo gave."""
    found = [row.details.get(name) for name in ("graph_break_reasons", "skip_reasons")]
    texts = dict.fromkeys(str(one) for some in found if isinstance(some, list) for one in some)
    return "; ".join(texts)


CAUSE = Cause(
    "graph-breaks",
    "part of the compiled model runs outside of compiled code",
    "remove what breaks the graph (.item(), print, branches on tensor values, unsupported "
    "functions); fullgraph=true raises an error at the first break and names its line",
    detect,
)
