"""Functions of torch were patched in the process in which the row ran."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def detect(context: CauseContext) -> CauseMatch | None:
    """Functions in torch's namespaces that were not defined by torch."""
    names = context.facts.evidence.foreign_functions
    if not names or context.claims.patches_torch:
        return None
    proof = "label-check" if context.label.is_wrong else ""
    return CauseMatch(
        (Number("patched torch functions", len(names), "count"),),
        proof=proof,
        reason=f"e.g. {names[0]}",
    )


CAUSE = Cause(
    "patched-functions",
    "torch functions patched in the process of the row",
    "measure in a new process (the launcher 'process') without code that patches torch, such as "
    "Apex O1",
    detect,
    "fresh-process",
    flatters=True,
)
