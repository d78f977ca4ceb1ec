"""An output that is rebuilt from its tensors and their paths."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import torch

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_STEP = re.compile(rf"\[(?P<key>{_QUOTED}|[^\]]*)\]|\.(?P<name>\w+)")


class OutputDict(dict[Any, Any]):
    """A mapping whose items are also attributes, as in the outputs of `transformers`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the output has no {name!r}, only {list(self)}") from None


def from_paths(tensors: Mapping[str, torch.Tensor]) -> Any:
    """The output that these tensors were in.

    Args:
        tensors: by their paths, as `walk` gives them.

    Returns:
        A tensor, or a tuple for tuples and lists, and an `OutputDict` for mappings and objects.
    """
    if list(tensors) == [""]:
        return tensors[""]
    root: dict[Any, Any] = {}
    for path, tensor in tensors.items():
        *parents, last = [_key(step) for step in _STEP.finditer(path)]
        place = root
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = tensor
    return _shaped(root)


def _key(step: re.Match[str]) -> Any:
    return step["name"] if step["name"] is not None else ast.literal_eval(step["key"])


def _shaped(tree: Any) -> Any:
    """Tuples where all keys count from 0, or from where tensors begin; else mappings."""
    if not isinstance(tree, dict):
        return tree
    values = {key: _shaped(value) for key, value in tree.items()}
    if values and all(type(key) is int for key in values):
        return tuple(values.get(place) for place in range(max(values) + 1))
    return OutputDict(values)
