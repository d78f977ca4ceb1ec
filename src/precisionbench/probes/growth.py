"""Tensors among the inputs and in the model's attributes that grow from call to call."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from torch import nn

from precisionbench.results.comparison_data import GROWS
from precisionbench.torchtools.tensors import attributes_of, walk
from precisionbench.torchtools.timer import Call

# Bytes of the tensors of each attribute, by its path.
StateBytes = Mapping[str, int]
_PLACES = re.compile(r"(\[[^\[\]]*\])+$")
_ARGUMENT = re.compile(r"inputs\[[^\[\]]*\]")
_COMPILED = "_orig_mod"  # where torch.compile keeps the module that it was given
_APART = ("_modules", "_parameters", "_buffers")
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def state_bytes(call: Call, module: nn.Module | None) -> StateBytes:
    """The size of everything that a call can keep for the next one.

    Args:
        call: one forward pass; its arguments are known where `Inputs.bind` made it.
        module: the model behind it, where there is one.

    Returns:
        Bytes by the path of an attribute (`inputs[1].keys`, `model.cache`); lists are added up.
    """
    trees: dict[str, object] = {}
    if isinstance(call, functools.partial):
        trees["inputs"] = call.args
        trees |= {f"inputs[{name!r}]": value for name, value in call.keywords.items()}
    for path, part in module.named_modules() if module is not None else ():
        held = {name: one for name, one in attributes_of(part).items() if name not in _APART}
        held |= dict(part.named_buffers(recurse=False))
        places = [place for place in ("model", *path.split(".")) if place not in ("", _COMPILED)]
        trees |= {".".join((*places, name)): one for name, one in held.items()}
    found: dict[str, int] = {}
    for name, tree in trees.items():
        for path, tensor in walk(tree, name, objects=True):
            key = _key(path)
            found[key] = found.get(key, 0) + tensor.numel() * tensor.element_size()
    return found


def _key(path: str) -> str:
    """The attribute or argument that a tensor is in, without its places in lists there."""
    argument = _ARGUMENT.match(path)
    rest = path[argument.end() :] if argument else path
    return (argument.group() if argument else "") + _PLACES.sub("", rest)


def growth_warning(before: StateBytes, after: StateBytes, calls: int) -> str:
    """A warning where something is larger after some calls than before them; else empty.

    Args:
        before: sizes after the first call, which may create what later ones keep.
        after: sizes after further calls.
        calls: how many.
    """
    grown = {path: after[path] - before.get(path, 0) for path in after}
    path = max(grown, key=lambda one: grown[one], default="")
    if not path or grown[path] <= 0:
        return ""
    sizes = f"from {_size(before.get(path, 0))} to {_size(after[path])}"
    return (
        f"{path} {GROWS}: {sizes} in {calls} warm-up calls, so each call does more work than the "
        "one before; give a cache of fixed size, or let forward work on a copy of it"
    )


def _size(size_bytes: int) -> str:
    units = ((size_bytes / factor, unit) for factor, unit in _UNITS if size_bytes >= factor)
    return next((f"{amount:.3g} {unit}" for amount, unit in units), f"{size_bytes} B")
