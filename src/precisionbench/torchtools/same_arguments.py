"""Whether arguments are those that a call was prepared with, but for the values of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch

from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, some
from precisionbench.torchtools.tensors import Inputs, attributes_of, map_tensors, walk

_PLAIN = (bool, int, float, str, type(None))  # whose text is the value
_BY_IDENTITY: Any = object.__eq__
_MOST_TEXT = 40  # characters of a value in a message


def tensors_in_order(given: Inputs, known: Inputs) -> list[torch.Tensor]:
    """The tensors of the arguments of a call, in the order of those that it was prepared with.

    Args:
        given: arguments of a call.
        known: those that it was prepared with: the call has their structure and other values.

    Raises:
        WorkloadError: the structure or a value that is not a tensor differs.
    """
    tensors, expected = dict(given.tensors()), [path for path, _ in known.tensors()]
    ours, theirs = _arguments(given), _arguments(known)
    if tensors.keys() != set(expected) or ours.keys() != theirs.keys():
        raise WorkloadError(
            f"the call has {_listed(list(ours), list(tensors))}, and the model was prepared with "
            f"{_listed(list(theirs), expected)}",
            "give positional and keyword arguments as those that it was prepared with",
        )
    for name, argument in ours.items():
        for value, before in itertools.zip_longest(_values(argument), _values(theirs[name])):
            if not _same(value, before):
                raise WorkloadError(
                    f"the argument {name} has {_text(value)} where the model was prepared with "
                    f"{_text(before)}",
                    "prepare the model again with this value; only tensors may differ",
                )
    return [tensors[path] for path in expected]


def _listed(arguments: list[str], tensors: list[str]) -> str:
    """The names of arguments, and the paths of tensors in them where these are others."""
    if not arguments:
        return "no arguments"
    named = f"the argument{'s' * (len(arguments) > 1)} {some(arguments)}"
    paths = [path.strip("[]'") for path in tensors]  # of an argument itself: "[0]", "['mask']"
    return named if paths == arguments else f"{named} (tensors: {some(tensors) or 'none'})"


def _arguments(inputs: Inputs) -> Mapping[str, Any]:
    return {str(place): value for place, value in enumerate(inputs.args)} | inputs.kwargs


def _values(argument: object) -> list[Any]:
    """Everything in an argument that is not a tensor or a container."""
    found: list[Any] = []
    map_tensors(lambda tensor: tensor, argument, found.append)
    return found


def _same(value: Any, before: Any) -> bool:
    if value is before:
        return True
    kind: Any = type(value)
    if kind is not type(before):
        return False
    if any(True for _ in walk(value, objects=True)):
        return True  # an object with tensors, which are compared by their paths
    try:
        if kind.__eq__ is _BY_IDENTITY:
            return attributes_of(value) == attributes_of(before)
        return bool(value == before)
    except FOREIGN_ERRORS:  # arrays, for example
        return False


def _text(value: object) -> str:
    kind = type(value).__name__
    return repr(value)[:_MOST_TEXT] if type(value) in _PLAIN else f"another {kind}"
