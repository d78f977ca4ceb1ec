"""Wraps functions of torch that wait for the device, read CUDA events or run a backward pass."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from precisionbench.scriptcheck.derived_numbers import difference
from precisionbench.scriptcheck.device import DeviceMonitor
from precisionbench.scriptcheck.event_log import EventLog

_FETCHES = ("item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__")
_MOVES = ("to", "cuda")

Function = Callable[..., Any]


def hook_waits(log: EventLog, device: DeviceMonitor, inside: Callable[[], bool]) -> None:
    """Record methods of tensors that copy between host and device, or wait for the device.

    Args:
        log: records them.
        device: says which tensors are in its memory.
        inside: whether a call of a model is running.
    """

    def fetch_hook(kind: str, fetch: Function) -> Function:
        @functools.wraps(fetch)
        def hooked(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if device.holds(tensor):
                log.add_wait(kind, sys._getframe(1), inside())
            return fetch(tensor, *args, **kwargs)

        return hooked

    def move_hook(move: Function) -> Function:
        @functools.wraps(move)
        def hooked(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            moved = move(tensor, *args, **kwargs)
            before, after = device.holds(tensor), device.holds(moved)
            if before != after:
                kind = ".to('cuda')" if after else ".to('cpu')"
                log.add_wait(kind, sys._getframe(1), inside())
            return moved

        return hooked

    for name in _FETCHES:
        kind = f"{name.strip('_')}()" if name.startswith("_") else f".{name}()"
        _replace(torch.Tensor, name, functools.partial(fetch_hook, kind))
    for name in _MOVES:
        _replace(torch.Tensor, name, move_hook)


def hook_cuda_events(log: EventLog) -> None:
    """Record CUDA events of the script as readings of a clock.

    Args:
        log: records the readings and their differences.
    """

    def record_hook(record: Function) -> Function:
        @functools.wraps(record)
        def hooked(event: Any, *args: Any, **kwargs: Any) -> Any:
            result = record(event, *args, **kwargs)
            frame = sys._getframe(1)
            if log.frames.contains(frame):
                event._reading = log.add_reading("torch.cuda.Event", 0.0, frame, query_device=False)
            return result

        return hooked

    def elapsed_hook(elapsed_time: Function) -> Function:
        @functools.wraps(elapsed_time)
        def hooked(event: Any, end: Any) -> Any:
            elapsed_ms = elapsed_time(event, end)
            first, second = getattr(event, "_reading", None), getattr(end, "_reading", None)
            if first is not None and second is not None:
                log.add_difference(first, second, elapsed_ms / 1e3, sys._getframe(1))
                return difference(log, elapsed_ms, elapsed_ms / 1e3, first, second)
            return elapsed_ms

        return hooked

    _replace(torch.cuda.Event, "record", record_hook)
    _replace(torch.cuda.Event, "elapsed_time", elapsed_hook)


def hook_backward(log: EventLog) -> None:
    """Record backward passes.

    Args:
        log: records them.
    """

    def backward_hook(backward: Function) -> Function:
        @functools.wraps(backward)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            log.add_backward()
            return backward(*args, **kwargs)

        return hooked

    _replace(torch.autograd, "backward", backward_hook)
    _replace(torch.autograd, "grad", backward_hook)


def _replace(owner: Any, name: str, hook: Callable[[Function], Function]) -> None:
    setattr(owner, name, hook(getattr(owner, name)))
