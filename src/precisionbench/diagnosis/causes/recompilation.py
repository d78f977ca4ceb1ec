"""A compiled row compiles again in every call."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.compiled import eager_row, is_compiled, share_compiling
from precisionbench.diagnosis.findings import Number


def detect(context: CauseContext) -> CauseMatch | None:
    """Compilations that had not ended when the warm-up did, as TorchDynamo counts them.

    A second compilation, for example for dynamic shapes, is normal.
    """
    row = context.facts.row
    again, calls = row.details.get("recompilations"), row.details.get("calls_until_compiled")
    if not is_compiled(row) or not row.details.get("still_compiling"):
        return None
    if not isinstance(again, int) or not isinstance(calls, int) or not again:
        return None
    numbers = [
        Number("recompilations after the first call", again, "count"),
        Number("warm-up calls", calls, "count"),
    ]
    eager = eager_row(context.data, row)
    if eager is not None and eager.latency.value < row.latency.value:
        beyond = 1 - eager.latency.value / row.latency.value
        numbers.append(Number(f"time beyond that of {eager.backend}", beyond, "share"))
    compiling = share_compiling(context.facts)
    if compiling:
        numbers.append(Number("time in compiling", compiling, "share"))
    reasons = row.details.get("recompile_reasons")
    text = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
    return CauseMatch(tuple(numbers), proof="counted", reason=text)


CAUSE = Cause(
    "recompilation",
    "the compiled model is compiled again in every call",
    "keep Python numbers that change from call to call in tensors (buffers), and pass inputs of "
    "few shapes, or compile with dynamic=true; in your own program torch.compile gives up after "
    "8 compilations of a function and runs it without compiling",
    detect,
)
