"""The compiler of an engine left operators of the model to PyTorch."""

from __future__ import annotations

from collections import Counter

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number
from precisionbench.results.evidence import PYTORCH

_MOST_NAMED = 3


def detect(context: CauseContext) -> CauseMatch | None:
    """By the compiled graph: each operator in it that is not in an engine."""
    row = context.facts.row
    left = [layer for layer in row.engine_operations if layer.place == PYTORCH]
    if not left:
        return None
    counted, engines = row.details.get("operators"), row.details.get("engines")
    numbers = [Number("operators in PyTorch", len(left), "count")]
    if isinstance(counted, dict):
        total = sum(number for number in counted.values() if isinstance(number, int))
        numbers.append(Number("operators in all", total, "count"))
    if isinstance(engines, int):
        numbers.append(Number("engines", engines, "count"))
    kinds = Counter(layer.short_name for layer in left).most_common(_MOST_NAMED)
    named = ", ".join(f"{count} {kind}" for kind, count in kinds)
    return CauseMatch(tuple(numbers), reason=named)


CAUSE = Cause(
    "engine-fallback",
    "Operators of the model ran in PyTorch, outside of the engine",
    "replace these operators by ones that the engine converts, or lower min_block_size where it "
    "converts them; require_full_compilation=true makes the row fail instead",
    detect,
)
