"""Runs an action right after a module has been imported for the first time."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def after_import(actions: dict[str, Action]) -> None:
    """Run an action after each of these modules has been imported; at once if that was before.

    Args:
        actions: by the full name of the module; each is called once, with the module.
    """
    for name in [name for name in actions if name in sys.modules]:
        actions.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _ActionFinder(actions))


class _ActionFinder(importlib.abc.MetaPathFinder):
    """Finds modules by the other finders, and adds an action to their loaders."""

    def __init__(self, actions: dict[str, Action]) -> None:
        self._actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of another finder, whose loader runs the action."""
        if fullname not in self._actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (other.find_spec(fullname, path, target) for other in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            self._add_action(spec.loader, fullname)
        return spec

    def _add_action(self, loader: Any, name: str) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            if (action := self._actions.pop(name, None)) is not None:
                action(module)

        loader.exec_module = exec_module
