"""Torch's settings of a prepared call, kept apart from those of the code between its calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch

from precisionbench.torchtools.global_state.flags import read_flags, set_flags


@attrs.frozen
class Settings:
    """Torch's global settings, and the autocast of this thread.

    Attributes:
        flags: what `read_flags` gave.
        autocast: by type of device, whether it is on and to which dtype.
        caches_casts: whether autocast keeps the weights that it has cast.
        autocast_contexts: autocast contexts that are open; where the last one ends, torch drops
            the weights that autocast has cast.
    """

    flags: Mapping[str, Any]
    autocast: Mapping[str, tuple[bool, torch.dtype]]
    caches_casts: bool
    autocast_contexts: int

    @classmethod
    def now(cls, *device_types: str) -> Settings:
        """The current settings.

        Args:
            *device_types: whose autocast is included.
        """
        kinds = filter(torch.amp.is_autocast_available, set(device_types))
        return cls(
            read_flags(),
            {k: (torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds},
            torch.is_autocast_cache_enabled(),
            _autocast_contexts(),
        )

    def set(self) -> None:
        """Make these the current settings."""
        set_flags(self.flags)
        for kind, (enabled, dtype) in self.autocast.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(self.caches_casts)
        _set_autocast_contexts(self.autocast_contexts)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Have these settings within the context, and afterwards those from before it."""
        before = Settings.now(*self.autocast)
        if before == self:
            yield
            return
        self.set()
        try:
            yield
        finally:
            before.set()


def _autocast_contexts() -> int:
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _set_autocast_contexts(count: int) -> None:
    """Torch has no function that sets it, and its own contexts drop cast weights at their end."""
    while _autocast_contexts() < count:
        torch.autocast_increment_nesting()
    while _autocast_contexts() > count:
        torch.autocast_decrement_nesting()
