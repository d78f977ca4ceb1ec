"""TorchDynamo's state in this process: how much it has compiled, and how much it may compile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_MANY_COMPILATIONS = 1 << 20


@contextlib.contextmanager
def recompile_limit_lifted() -> Iterator[None]:
    """Let TorchDynamo compile each row's copy of a compiled model; it gives up after 8 otherwise.

    It counts by the code of `forward`, which all copies share.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None:  # nothing is compiled here
        yield
        return
    names = ("recompile_limit", "accumulated_recompile_limit")
    if not hasattr(dynamo.config, names[0]):  # their names up to torch 2.6
        names = ("cache_size_limit", "accumulated_cache_size_limit")
    with dynamo.config.patch(**dict.fromkeys(names, _MANY_COMPILATIONS)):
        yield


def compilations() -> int:
    """How many graphs TorchDynamo has compiled in this process."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0
