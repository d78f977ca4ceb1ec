"""Measure any PyTorch model under every precision backend, side by side.

    import precisionbench as pb

    comparison = pb.compare(model, inputs, backends=["eager", "half"])
    print(comparison)

Importing this package imports neither torch nor numpy; each name loads what it needs when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from precisionbench._version import __version__ as __version__

if TYPE_CHECKING:
    from precisionbench.backends.discovery import list_backends as list_backends
    from precisionbench.comparison import Comparison as Comparison
    from precisionbench.comparison import load as load
    from precisionbench.diagnosis.gap.ledger import Factor as Factor
    from precisionbench.doctor.examine import examine as examine
    from precisionbench.measure.compare import compare as compare
    from precisionbench.report.progress import progress_display as progress_display
    from precisionbench.results.progress import Progress as Progress
    from precisionbench.results.records import Verdict as Verdict
    from precisionbench.scriptcheck.check import Check as Check
    from precisionbench.scriptcheck.check import check as check
    from precisionbench.statistics import Interval as Interval
    from precisionbench.testing.assertions import assert_agrees as assert_agrees
    from precisionbench.testing.assertions import assert_not_slower as assert_not_slower
    from precisionbench.testing.assertions import assert_speedup as assert_speedup
    from precisionbench.workflows.diagnose import Diagnosis as Diagnosis
    from precisionbench.workflows.diagnose import GapLedger as GapLedger
    from precisionbench.workflows.diagnose import diagnose as diagnose
    from precisionbench.workflows.diagnose import explain_gap as explain_gap
    from precisionbench.workflows.ladder import Ladder as Ladder
    from precisionbench.workflows.ladder import ladder as ladder

_HOMES = {
    "Check": "scriptcheck.check",
    "Comparison": "comparison",
    "Factor": "diagnosis.gap.ledger",
    "Interval": "statistics",
    "Progress": "results.progress",
    "Verdict": "results.records",
    "Diagnosis": "workflows.diagnose",
    "assert_agrees": "testing.assertions",
    "assert_not_slower": "testing.assertions",
    "assert_speedup": "testing.assertions",
    "check": "scriptcheck.check",
    "compare": "measure.compare",
    "diagnose": "workflows.diagnose",
    "explain_gap": "workflows.diagnose",
    "GapLedger": "workflows.diagnose",
    "Ladder": "workflows.ladder",
    "ladder": "workflows.ladder",
    "examine": "doctor.examine",
    "list_backends": "backends.discovery",
    "load": "comparison",
    "progress_display": "report.progress",
}
_SUBMODULES = ("backends", "errors", "published", "results")

__all__ = [
    "Check",
    "Comparison",
    "Diagnosis",
    "Factor",
    "GapLedger",
    "Interval",
    "Ladder",
    "Progress",
    "Verdict",
    "assert_agrees",
    "assert_not_slower",
    "assert_speedup",
    "check",
    "compare",
    "diagnose",
    "examine",
    "explain_gap",
    "ladder",
    "list_backends",
    "load",
    "progress_display",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_SUBMODULES])
