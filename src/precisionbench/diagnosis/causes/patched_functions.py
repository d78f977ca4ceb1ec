"""Somebody has patched torch in the process that the row ran in."""

from __future__ import annotations

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.findings import Number


def look(scene: CauseContext) -> CauseMatch | None:
    """Functions in torch's namespaces whose code is not torch's."""
    names = scene.facts.evidence.foreign_functions
    if not names or scene.claims.patches_torch:
        return None
    proof = "label-check" if scene.label.is_wrong else ""
    return CauseMatch(
        (Number("functions of torch that are not torch's own", len(names), "count"),),
        proof=proof,
        reason=f"e.g. {names[0]}",
    )


CAUSE = Cause(
    "patched-functions",
    "C15",
    "torch was patched in the process in which the row ran",
    "measure it in a fresh process (launcher='process') without what patches torch, e.g. Apex O1",
    look,
    "fresh-process",
    flatters=True,
)
