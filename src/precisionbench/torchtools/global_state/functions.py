"""PyTorch's functions: find those that were replaced, and put the original ones back.

The founding case of this library was a leak of this kind: Apex O1 patched torch's functions, and
every model that ran later in the same process ran in half precision.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch

_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")


def _namespaces() -> dict[str, Any]:
    """The modules, classes and tables from which a running model gets torch's functions."""
    from torch.nn.modules import module, rnn

    return {
        "torch": torch,
        "torch.nn.functional": torch.nn.functional,
        "torch.linalg": torch.linalg,
        "torch.fft": torch.fft,
        "torch.special": torch.special,
        "torch.Tensor": torch.Tensor,
        "torch.nn.modules.rnn": rnn,
        "torch.nn.modules.rnn._rnn_impls": rnn._rnn_impls,
        **{f"torch.nn.modules.module.{hooks}": vars(module)[hooks] for hooks in _GLOBAL_HOOKS},
        **_layer_classes(),
    }


def _layer_classes() -> dict[str, type]:
    """torch.nn's modules and their base classes, by name."""
    modules = (kind for kind in vars(torch.nn).values() if isinstance(kind, type))
    bases = (base for kind in modules for base in kind.__mro__)
    layers = (base for base in bases if base.__module__.startswith("torch.nn.modules."))
    return {f"{base.__module__}.{base.__qualname__}": base for base in layers}


def _contents(namespace: Any) -> Mapping[str, Any]:
    return namespace if isinstance(namespace, dict) else vars(namespace)


_MISSING = object()
# Python and torch fill these in as they go; no model computes with them.
_BOOKKEEPING = {
    "__warningregistry__",
    "__slotnames__",
    "__annotations__",
    "__annotations_cache__",
    "__doc__",
}
# `torch.set_default_dtype` rebinds this class; the default dtype is one of the flags.
_STORAGE = "Storage"
# TorchDynamo wraps a few functions for good when it is first used; that is torch's own doing, it
# changes no result, and undoing it would break Dynamo.
_TORCHS_OWN_WRAPPERS = ("torch._dynamo", "torch._compile")


def _is_relevant(name: str, before: object, after: object) -> bool:
    """Whether this change can change what a model computes."""
    if name in _BOOKKEEPING or name == _STORAGE:
        return False
    if before is _MISSING and isinstance(after, (types.ModuleType, str, int, float)):
        return False  # a submodule that was imported meanwhile, or torch's own bookkeeping
    if isinstance(after, types.FunctionType):
        # Not __module__: functools.wraps copies that from what is wrapped.
        home = str(after.__globals__.get("__name__", ""))
        return not home.startswith(_TORCHS_OWN_WRAPPERS)
    return True


# Namespaces of torch that hold nothing but torch's own functions.
_TORCH_ONLY = ("torch", "torch.nn.functional", "torch.Tensor", "torch.nn.modules.rnn")
# Top-level packages whose code torch's functions are: torch itself, and decorators that it uses.
_TORCH_CODE = ("torch", "functools", "typing", "typing_extensions", "contextlib", "warnings")


def foreign_functions() -> tuple[str, ...]:
    """Functions in torch's namespaces whose code is not torch's, because they were patched.

    Unlike `Functions`, this does not need the state before the patch.
    """
    spaces = _namespaces()
    return tuple(
        f"{space}.{name}"
        for space in _TORCH_ONLY
        for name, value in _contents(spaces[space]).items()
        if isinstance(value, types.FunctionType) and not _is_torch_code(value)
    )


def _is_torch_code(function: types.FunctionType) -> bool:
    """Whether its code is torch's, by its globals, because functools.wraps copies names."""
    home = str(function.__globals__.get("__name__", ""))
    return home.partition(".")[0] in _TORCH_CODE


@attrs.frozen
class Functions:
    """A snapshot of torch's functions, to find what has changed since and to restore it.

    Attributes:
        contents: a copy of each namespace.
    """

    contents: Mapping[str, Mapping[str, Any]]

    @classmethod
    def now(cls) -> Functions:
        """A snapshot of the current functions."""
        return cls({name: dict(_contents(space)) for name, space in _namespaces().items()})

    def changes(self) -> list[str]:
        """Names replaced, added or removed since, such as `torch.nn.functional.relu`."""
        return [f"{space}.{name}" for space, name, *_ in self._changed()]

    def restore(self) -> None:
        """Restore everything in `changes`: names that were inherited are inherited again."""
        spaces = _namespaces()
        for space, name, existed, value in self._changed():
            _restore_name(spaces[space], name, existed, value)

    def _changed(self) -> list[tuple[str, str, bool, Any]]:
        found = []
        for space, namespace in _namespaces().items():
            old, new = self.contents[space], _contents(namespace)
            for name in [*old, *(name for name in new if name not in old)]:
                before, after = old.get(name, _MISSING), new.get(name, _MISSING)
                if before is not after and _is_relevant(name, before, after):
                    found.append((space, name, name in old, before))
        return found


def _restore_name(namespace: Any, name: str, existed: bool, value: Any) -> None:
    if isinstance(namespace, dict):
        if existed:
            namespace[name] = value
        else:
            del namespace[name]
    elif existed:
        setattr(namespace, name, value)
    else:
        delattr(namespace, name)


@contextlib.contextmanager
def functions_restored() -> Iterator[Functions]:
    """Restore torch's functions on leaving; yields the snapshot."""
    before = Functions.now()
    try:
        yield before
    finally:
        before.restore()
