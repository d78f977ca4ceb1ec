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
    from precisionbench.assertions import assert_agrees as assert_agrees
    from precisionbench.assertions import assert_not_slower as assert_not_slower
    from precisionbench.assertions import assert_speedup as assert_speedup
    from precisionbench.backends.discovery import list_backends as list_backends
    from precisionbench.checking.running import Check as Check
    from precisionbench.checking.running import check as check
    from precisionbench.climbing.ladder import Ladder as Ladder
    from precisionbench.climbing.ladder import ladder as ladder
    from precisionbench.comparison import Comparison as Comparison
    from precisionbench.comparison import load as load
    from precisionbench.diagnosis.gap.ledger import Factor as Factor
    from precisionbench.doctor.examining import examine as examine
    from precisionbench.explaining import Diagnosis as Diagnosis
    from precisionbench.explaining import GapLedger as GapLedger
    from precisionbench.explaining import diagnose as diagnose
    from precisionbench.explaining import explain_gap as explain_gap
    from precisionbench.progress import Progress as Progress
    from precisionbench.report.progress import progress_display as progress_display
    from precisionbench.results import Verdict as Verdict
    from precisionbench.runner import compare as compare
    from precisionbench.statistics import Interval as Interval

_HOMES = {
    "Check": "checking.running",
    "Comparison": "comparison",
    "Factor": "diagnosis.gap.ledger",
    "Interval": "statistics",
    "Progress": "progress",
    "Verdict": "results",
    "Diagnosis": "explaining",
    "assert_agrees": "assertions",
    "assert_not_slower": "assertions",
    "assert_speedup": "assertions",
    "check": "checking.running",
    "compare": "runner",
    "diagnose": "explaining",
    "explain_gap": "explaining",
    "GapLedger": "explaining",
    "Ladder": "climbing.ladder",
    "ladder": "climbing.ladder",
    "examine": "doctor.examining",
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
