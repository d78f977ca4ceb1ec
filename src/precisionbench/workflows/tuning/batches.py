"""The user's batches: read from data within limits, what the model takes of them, and copies."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch

from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, kind_of, one_line
from precisionbench.model import fingerprint
from precisionbench.torchtools.tensors import Inputs, map_tensors, map_with_objects, walk

LEAST_BATCHES = 8  # of the data that are used, also where they take long
_FEWEST_BATCHES = 2  # that show how batches differ, however long they take
_USUAL_SHARE, _LARGEST_SHARE = 0.1, 0.5  # of the budget, to read batches
_MOST_BATCHES, _MOST_BYTES = 10_000, 2**32  # that are kept of data which is not in memory yet


@attrs.frozen
class Batches:
    """Batches that were read from the user's data.

    Attributes:
        found: the batches.
        hashes: of what each of them holds, labels among it.
        note: why there may be more that were not read; empty where all were read.
        ended_by_budget_s: seconds of the budget of which a share ended the reading; None where
            the same batches are read every time.
    """

    found: Sequence[Any]
    hashes: Sequence[str]
    note: str = ""
    ended_by_budget_s: float | None = None

    @property
    def key(self) -> list[str]:
        """What identifies the data: the hashes of all batches.

        Where the time ends the reading, another run reads a few more or less. Then the key is of
        the batches that every run reads, and of the budget: a larger one uses more of the data.
        """
        if self.ended_by_budget_s is None:
            return [*self.hashes]
        are_enough = len(self.hashes) >= LEAST_BATCHES
        sure = self.hashes[: LEAST_BATCHES if are_enough else _FEWEST_BATCHES]
        return [*sure, f"read in {self.ended_by_budget_s} s"]


@attrs.define
class _Reading:
    """Reads batches until there are enough.

    Attributes:
        budget_s: seconds of which reading may take a share.
        most: how many are read at most.
        found: the batches.
        hashes: of what each of them holds.
    """

    budget_s: float
    most: int
    found: list[Any] = attrs.field(factory=list, init=False)
    hashes: list[str] = attrs.field(factory=list, init=False)
    _begun_s: float = attrs.field(factory=lambda: time.monotonic(), init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def add(self, batch: Any) -> None:
        """Take a batch; hashing it counts as reading."""
        self.found.append(batch)
        self.hashes.append(fingerprint.batch(batch))
        self._bytes += _bytes_of(batch)

    def is_enough(self) -> bool:
        """Whether reading ends with the last batch."""
        count = len(self.found)
        is_full = self._bytes > _MOST_BYTES and count >= LEAST_BATCHES
        return count >= self.most or is_full or self._is_late()

    def _is_late(self) -> bool:
        count = len(self.found)
        share = (time.monotonic() - self._begun_s) / self.budget_s
        is_over = share > _LARGEST_SHARE and count >= _FEWEST_BATCHES
        return is_over or (share > _USUAL_SHARE and count >= LEAST_BATCHES)

    def ended(self, data: Any) -> Batches:
        """The batches, with the reason for which reading has ended before the end of the data."""
        count, of = len(self.found), _length(data)
        if count == of:
            return Batches(self.found, self.hashes)
        text = f"reading of data ended after {count:,}{f' of {of:,}' if of else ''} batches, "
        if self._is_late():
            took_s = time.monotonic() - self._begun_s
            text += f"which took {took_s:.2g} s of the budget of {self.budget_s:g} s; a larger "
            text += "budget_s (--budget) uses more, and so does a list of batches read before"
            return Batches(self.found, self.hashes, text, self.budget_s)
        held = (
            f"which hold {self._bytes / 1e9:.1f} GB"
            if count < self.most
            else "the most that is read"
        )
        text += f"{held}; give a list of batches to use more"
        return Batches(self.found, self.hashes, text)


def _length(data: Any) -> int:
    """How many batches data has; 0 where that is not known."""
    with contextlib.suppress(*FOREIGN_ERRORS):
        return len(data)
    return 0


def _bytes_of(batch: Any) -> int:
    """Size of the tensors and arrays in a batch."""
    sizes: list[Any] = [tensor.nbytes for _, tensor in walk(batch, objects=True)]
    map_tensors(lambda one: one, batch, lambda leaf: sizes.append(getattr(leaf, "nbytes", 0)))
    return sum(size for size in sizes if isinstance(size, int))


def batches_of(data: Any, budget_s: float = math.inf, most: int | None = None) -> Batches:
    """The batches of the user's data: all of a list or tuple, and the first ones of an iterator.

    Args:
        data: an iterable of batches, which may be endless.
        budget_s: seconds, of which reading takes a tenth: more for 8 batches, and more than half
            for 2.
        most: batches that are used at most; None are all of a list or tuple, and else 10,000.

    Raises:
        WorkloadError: data is not an iterable of batches, or cannot be read.
    """
    if isinstance(data, (torch.Tensor, str, Mapping)) or not isinstance(data, Iterable):
        raise WorkloadError(
            f"data is {kind_of(data)}, and no iterable of batches",
            "give a list of batches or a DataLoader, such as [(images, labels), ...]",
        )
    if isinstance(data, (list, tuple)):
        return Batches(data[:most], [*map(fingerprint.batch, data[:most])])
    reading = _Reading(budget_s, most or _MOST_BATCHES)
    try:
        for batch in data:
            reading.add(batch)
            if reading.is_enough():
                return reading.ended(data)
    except FOREIGN_ERRORS as exc:
        raise WorkloadError(
            f"batch {len(reading.found)} of data cannot be read ({one_line(exc)})",
            "iterate over data once without precisionbench",
        ) from exc
    return Batches(reading.found, reading.hashes)


def own_copy(batch: Any) -> Any:
    """A copy of a batch that a metric may change: of its containers, tensors and arrays.

    Args:
        batch: any structure; objects without tensors are not copied.
    """
    for copied in (map_with_objects, map_tensors):
        with contextlib.suppress(WorkloadError):  # an object among it cannot be copied
            return copied(lambda tensor: tensor.detach().clone(), batch, _copied)
    return batch


def _copied(leaf: Any) -> Any:
    import numpy as np

    can_change = isinstance(leaf, (np.ndarray, set, bytearray))
    return copy.deepcopy(leaf) if can_change else leaf


def inputs_of(batch: Any, given: Inputs, number: int) -> list[torch.Tensor]:
    """The tensors of a batch that the model takes.

    Args:
        batch: a tensor; a sequence whose first elements are the positional arguments, such as
            (images, labels); or a mapping that holds the keyword arguments by name.
        given: the inputs of the workload, which have the same structure.
        number: of the batch, for the error.

    Raises:
        WorkloadError: the batch does not fit.
    """
    try:
        args, kwargs = _arguments(batch, given)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise WorkloadError(
            f"batch {number} of data, {kind_of(batch)}, does not hold the model's inputs "
            f"({one_line(exc)})",
            f"give {_wanted(given)}",
        ) from exc
    tensors = [tensor.detach().cpu() for _, tensor in Inputs(args, kwargs).tensors()]
    want = [tuple(tensor.shape) for _, tensor in given.tensors()]
    if len(tensors) != len(want):
        raise WorkloadError(
            f"batch {number} of data has {len(tensors)} tensors for the model, which is tuned for "
            f"{len(want)}",
            f"give {_wanted(given)}; torch.as_tensor(array) makes tensors of arrays",
        )
    got = [tuple(tensor.shape) for tensor in tensors]
    if got != want:
        raise WorkloadError(
            f"batch {number} of data has inputs of shape {got}, and the model is tuned for {want}",
            "give batches of the size of inputs, without a smaller last one (drop_last=True)",
        )
    return tensors


def _arguments(batch: Any, given: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, torch.Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        if given.args:
            raise TypeError("it holds arguments by name, and inputs has them by position")
        return (), {name: batch[name] for name in given.kwargs}
    first = tuple(batch[place] for place in range(len(given.args)))
    if not given.kwargs:
        return first, {}
    named = batch[len(first)]
    if not isinstance(named, Mapping):
        raise TypeError(f"inputs has {', '.join(given.kwargs)} by name")
    return first, {name: named[name] for name in given.kwargs}


def _wanted(given: Inputs) -> str:
    """What a batch has to be, for these inputs."""
    if not given.args:
        return "mappings with the names of inputs, and the labels beside these"
    if given.kwargs:
        return "(arguments..., {names: arguments}, labels), or inputs and batches as mappings"
    return "(inputs, labels), or give inputs as a mapping by name as well"
