"""Tracks which functions of torch are patched, and which model ran with the patches first."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import nn

from precisionbench.torchtools.global_state import Functions

_PATCHABLE = ("torch.nn.functional.", "torch.Tensor.", "torch.nn.modules.rnn.")
_NO_COMPUTATION = ("compile", "load", "save", "manual_seed")


class PatchTracker:
    """Functions of torch that differ from those at the start.

    Attributes:
        names: of the patched functions.
        epoch: grows with each change of the patches.
    """

    def __init__(self) -> None:
        self._original = Functions.now()
        self._sample = _sample()
        self._owner: int | None = None
        self._functions: list[object] = []
        self.names: tuple[str, ...] = ()
        self.epoch = 0

    def update_if_sample_changed(self) -> None:
        """Compare a few important functions, and all of them if one of those has changed."""
        sample = _sample()
        if sample != self._sample:
            self._sample = sample
            self.update()

    def update(self) -> None:
        """Compare all functions; a change begins a new epoch."""
        names = tuple(name for name in self._original.changes() if _is_patchable(name))
        functions = [_function(name) for name in names]
        if names != self.names or [*map(id, functions)] != [*map(id, self._functions)]:
            self.names, self._functions = names, functions
            self._owner = None
            self.epoch += 1

    def owner(self, model: int) -> int:
        """The first model that ran with the current patches.

        Args:
            model: number of the model that runs with them now.
        """
        if self._owner is None:
            self._owner = model
        return self._owner


def _sample() -> tuple[object, ...]:
    """Functions that are cheap to compare at each call.

    A patch of other functions is found when the next new model is called.
    """
    functional = nn.functional
    return functional.conv2d, functional.linear, torch.matmul


def _is_patchable(name: str) -> bool:
    """Whether models compute with it; `torch.set_default_dtype` rebinds classes of storages."""
    if name.count(".") > 1:
        return name.startswith(_PATCHABLE)
    short = name.partition(".")[2]
    return short not in _NO_COMPUTATION and not short[:1].isupper()


def _function(name: str) -> object:
    try:
        return attrgetter(name.partition(".")[2])(torch)
    except AttributeError:  # an entry of a dictionary, or a function that was removed
        return None
