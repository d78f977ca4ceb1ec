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

from precisionbench._internal import moved_modules
from precisionbench._version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers; a test holds that these are the names below
    from precisionbench.comparison import Comparison as Comparison
    from precisionbench.comparison import load as load
    from precisionbench.diagnosis.gap.ledger import Factor as Factor
    from precisionbench.doctor.examine import examine as examine
    from precisionbench.measure.availability import list_backends as list_backends
    from precisionbench.measure.compare import compare as compare
    from precisionbench.report.progress import progress_display as progress_display
    from precisionbench.results import Verdict as Verdict
    from precisionbench.results.progress import Progress as Progress
    from precisionbench.scriptcheck.check import Check as Check
    from precisionbench.scriptcheck.check import check as check
    from precisionbench.statistics import Interval as Interval
    from precisionbench.testing.assertions import assert_agrees as assert_agrees
    from precisionbench.testing.assertions import assert_not_slower as assert_not_slower
    from precisionbench.testing.assertions import assert_speedup as assert_speedup
    from precisionbench.workflows.diagnose import Diagnosis as Diagnosis
    from precisionbench.workflows.diagnose import GapLedger as GapLedger
    from precisionbench.workflows.diagnose import diagnose as diagnose
    from precisionbench.workflows.diagnose import explain as explain
    from precisionbench.workflows.diagnose import explain_gap as explain_gap
    from precisionbench.workflows.experiment_runs import Experiments as Experiments
    from precisionbench.workflows.ladder import Ladder as Ladder
    from precisionbench.workflows.ladder import ladder as ladder
    from precisionbench.workflows.tuning.tune import tune as tune
    from precisionbench.workflows.tuning.tuned import Tuned as Tuned
    from precisionbench.workflows.tuning.tuned import load_tuned as load_tuned

_NAMES_BY_MODULE = {
    "comparison": ["Comparison", "load"],
    "diagnosis.gap.ledger": ["Factor"],
    "doctor.examine": ["examine"],
    "measure.availability": ["list_backends"],
    "measure.compare": ["compare"],
    "report.progress": ["progress_display"],
    "results.progress": ["Progress"],
    "results": ["Verdict"],
    "scriptcheck.check": ["Check", "check"],
    "statistics": ["Interval"],
    "testing.assertions": ["assert_agrees", "assert_not_slower", "assert_speedup"],
    "workflows.diagnose": ["Diagnosis", "GapLedger", "diagnose", "explain", "explain_gap"],
    "workflows.experiment_runs": ["Experiments"],
    "workflows.ladder": ["Ladder", "ladder"],
    "workflows.tuning.tune": ["tune"],
    "workflows.tuning.tuned": ["Tuned", "load_tuned"],
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}
_SUBMODULES = ("backends", "errors", "published", "results")
__all__ = sorted(_MODULES)

moved_modules.install()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_SUBMODULES])
