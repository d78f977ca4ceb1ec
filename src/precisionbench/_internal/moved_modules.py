"""Modules that the documentation once named by another path; the old paths still import them."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "precisionbench.backends.compiling": "precisionbench.backends.compile",
    "precisionbench.checking": "precisionbench.scriptcheck",
    "precisionbench.checking.running": "precisionbench.scriptcheck.check",
    "precisionbench.climbing": "precisionbench.workflows",
    "precisionbench.climbing.ladder": "precisionbench.workflows.ladder",
    "precisionbench.comparability": "precisionbench.analysis.comparable",
    "precisionbench.differences": "precisionbench.analysis.run_diff",
    "precisionbench.doctor.examining": "precisionbench.doctor.examine",
    "precisionbench.evidence": "precisionbench.results.evidence",
    "precisionbench.experiments": "precisionbench.workflows.experiments",
    # where `from precisionbench.checking import running` finds it
    "precisionbench.scriptcheck.running": "precisionbench.scriptcheck.check",
    "precisionbench.quality": "precisionbench.analysis.data_quality",
}


class _MovedModuleLoader:
    """Returns the module of the new path, under which all of it stays known."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has replaced it by the old path's


class _MovedModuleFinder:
    """Finds the old paths only."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        # importing the base class from importlib.abc would take milliseconds
        return ModuleSpec(name, _MovedModuleLoader())  # type: ignore[arg-type]


_FINDER = _MovedModuleFinder()


def install() -> None:
    """Let the old paths be imported.

    The finder comes first: a package's old path has its new folder, where Python's own finder would
    load a second copy of each module.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
