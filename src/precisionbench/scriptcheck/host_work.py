"""Times work of the host outside of models: conversions, copies, data loading and pauses.

Only what happens in the main thread and outside of models, and of that only the time in which the
device has nothing to do: the rest costs a timing nothing, or is part of the model. torch is not
imported here, because the pauses are hooked before the script imports it.
"""

from __future__ import annotations

import builtins
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from precisionbench.scriptcheck.event_log import EventLog
from precisionbench.scriptcheck.events import LOADING
from precisionbench.scriptcheck.real_clock import perf_counter

_TO_TENSOR = ("tensor", "as_tensor", "from_numpy")
_RANDOM = ("rand", "randn", "randint")
_CASTS = ("half", "bfloat16", "float", "double", "to")
_FROM_TENSOR = ("tolist", "numpy", "item", "cpu", "cuda", "to")

Function = Callable[..., Any]


def hook_pauses(log: EventLog) -> None:
    """Time `time.sleep`.

    Args:
        log: records it.
    """
    time.sleep = _timed("time.sleep()", time.sleep, log, lambda: False)


def hook_host_work(log: EventLog) -> None:
    """Time `print`, and functions of torch that convert, copy or load data.

    Args:
        log: records them.
    """
    import torch
    from torch.utils._device import _device_constructors
    from torch.utils.data import dataloader

    _device_constructors()  # torch keeps these functions themselves, for `with torch.device(...)`
    torch.overrides.get_ignored_functions()
    is_compiling = torch.compiler.is_compiling
    for name in (*_TO_TENSOR, *_RANDOM):
        original = getattr(torch, name)
        function = _timed(f"torch.{name}()", original, log, is_compiling)
        function.__module__, function.__qualname__ = "torch", name  # so that it can be pickled
        if operation := torch.jit._builtins._find_builtin(original):  # for torch.jit.script
            torch.jit._builtins._register_builtin(function, operation)
        setattr(torch, name, function)
    for name in _FROM_TENSOR:
        method = _timed(f".{name}()", getattr(torch.Tensor, name), log, is_compiling)
        setattr(torch.Tensor, name, method)
    for name in _CASTS:  # of all weights
        cast = _timed(f"module.{name}()", getattr(torch.nn.Module, name), log, is_compiling)
        setattr(torch.nn.Module, name, cast)
    builtins.print = _timed("print()", builtins.print, log, is_compiling)
    iterator = dataloader._BaseDataLoaderIter
    iterator.__next__ = _timed(  # type: ignore[method-assign]
        LOADING, iterator.__next__, log, lambda: False
    )


def _timed(
    kind: str, function: Function, log: EventLog, is_compiling: Callable[[], bool]
) -> Function:
    @functools.wraps(function)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        # First, because torch.compile evaluates it to a constant and leaves the rest out.
        if is_compiling() or not log.may_add_host_work():
            return function(*args, **kwargs)
        log.is_in_host_work = True
        marker = log.pending_marker()
        start_s = perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            log.add_host_work(kind, sys._getframe(1), perf_counter() - start_s, marker)
            log.is_in_host_work = False

    return hooked
