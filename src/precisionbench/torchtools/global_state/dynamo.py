"""TorchDynamo's state in this process: how much it has compiled, and how much it may compile."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def dynamo_not_imported_by(mode: type) -> Iterator[None]:
    """Let a dispatch mode work without TorchDynamo, where that is not imported yet.

    torch excludes the method of each dispatch mode from compilation, and imports TorchDynamo for
    that at the first call: seconds on a slow file system, and nothing is compiled here.

    Args:
        mode: a class with a `__torch_dispatch__`.
    """
    method: Callable[..., Any] | None = mode.__dict__.get("__torch_dispatch__")
    original = getattr(method, "__wrapped__", None)
    if original is None or "torch._dynamo" in sys.modules:
        yield
        return
    # Where `torch._compile._disable_dynamo` keeps what it made at the first call.
    original.__dynamo_disable = original
    try:
        yield
    finally:
        del original.__dynamo_disable
