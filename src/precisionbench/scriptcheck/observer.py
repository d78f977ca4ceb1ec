"""Observes calls of models in the script's process, and installs the other hooks on torch.

Only outermost calls of modules are recorded; a call inside another one costs the check of a flag.
Hooks of torch's own (`register_module_forward_hook`) would run in every layer and switch torch's
fast paths off.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from types import FrameType
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.errors import one_line
from precisionbench.scriptcheck.device import CudaMonitor, DeviceMonitor
from precisionbench.scriptcheck.event_log import CallKey, EventLog
from precisionbench.scriptcheck.events import Ending, Observations
from precisionbench.scriptcheck.frames import Line
from precisionbench.scriptcheck.function_hooks import hook_functions
from precisionbench.scriptcheck.host_work import hook_host_work
from precisionbench.scriptcheck.model_registry import ModelRegistry, shape_of
from precisionbench.scriptcheck.operations import Operations, find_operations
from precisionbench.scriptcheck.real_clock import perf_counter
from precisionbench.scriptcheck.torch_hooks import hook_backward, hook_cuda_events, hook_waits

_PATCHING_LEVEL = "O1"  # of Apex
_ERROR_KEPT = 200  # characters
_MOST_SEARCHES = 2_000  # for operations: each takes about a hundred microseconds

Function = Callable[..., Any]
Called = tuple[int, str, bool]  # number, type of the device, training mode


class _Thread(threading.local):
    """The state of one thread.

    Attributes:
        inside: whether it is in a call that is recorded.
    """

    inside = False


class Observer:
    """Observes torch from its construction on.

    Args:
        log: records what happens.
        device: of the script; the real GPU if None.
    """

    def __init__(self, log: EventLog, device: DeviceMonitor | None = None) -> None:
        self._log = log
        self._device = log.device = device or CudaMonitor()
        self._thread = _Thread()
        log.torch_threads = torch.get_num_threads
        log.is_inside_call = lambda: self._thread.inside
        self._hook_calls()
        hook_functions(self._recorded_function)
        self._keys: dict[tuple[Any, ...], CallKey] = {}
        self._searches = 0  # for operations
        log.on_timing = self._record_operations
        hook_waits(log, self._device, lambda: self._thread.inside)
        hook_cuda_events(log)
        hook_backward(log)
        hook_host_work(log)
        self._models = ModelRegistry(self._device)  # last: our hooks are no patches of the script

    def observations(self, ending: Ending) -> Observations:
        """Everything observed.

        Args:
            ending: how the script ended.
        """
        with contextlib.suppress(RuntimeError):  # device lost
            self._device.synchronize()
        gpu = torch.cuda.get_device_name() if torch.cuda.is_initialized() else ""
        found = self._log.frozen(ending, self._models.frozen(), str(torch.__version__), gpu)
        return attrs.evolve(found, torch_threads=self._models.torch_threads)

    def hook_apex(self, amp: Any) -> None:
        """Record which models are given to Apex with a level that patches torch.

        Args:
            amp: the module `apex.amp`.
        """
        initialize = amp.initialize

        @functools.wraps(initialize)
        def hooked(models: Any, *args: Any, **kwargs: Any) -> Any:
            level = kwargs.get("opt_level", args[1] if len(args) > 1 else _PATCHING_LEVEL)
            result = initialize(models, *args, **kwargs)
            if level == _PATCHING_LEVEL:
                first = result[0] if isinstance(result, tuple) else result
                patched = (first if isinstance(first, list) else [first], models)
                self._models.add_patched_by_apex(_modules(patched))
            return result

        amp.initialize = hooked

    def _hook_calls(self) -> None:
        def described(args: tuple[Any, ...], _: list[torch.Tensor], line: Line) -> Called:
            number, device_type = self._models.number(args[0], line)
            training = getattr(args[0], "training", False)  # torch.jit.freeze removes it
            return number, device_type, training

        recorded = self._recorded(nn.Module.__call__, described)
        nn.Module.__call__ = recorded  # type: ignore[method-assign]

    def _recorded_function(self, function: Function, name: str, kind: str) -> Function:
        """A function that does what another does, and records its outermost calls."""

        def described(_: tuple[Any, ...], tensors: list[torch.Tensor], line: Line) -> Called:
            return (*self._models.function_number(function, name, kind, tensors, line), False)

        return self._recorded(function, described)

    def _recorded(self, call: Function, described: Callable[..., Called]) -> Function:
        thread = self._thread

        @functools.wraps(call)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            if thread.inside or torch._C._is_tracing():
                return call(*args, **kwargs)
            thread.inside = True
            try:
                graphs = _compiled_graphs()
                start_s = perf_counter()
                output = call(*args, **kwargs)
                call_s = perf_counter() - start_s
            except Exception as exc:
                given = (*args, *kwargs.values())
                self._record_failure(described, given, exc, sys._getframe(1))
                raise
            finally:
                thread.inside = False
            try:
                given = (*args, *kwargs.values())
                compiled = _compiled_graphs() > graphs
                frame = sys._getframe(1)
                self._record_call(described, given, output, call_s, compiled, frame)
            except Exception as exc:  # an error of ours must not reach the script
                self._log.observer_error = one_line(exc)
            self._log.add_overhead(perf_counter() - start_s - call_s)
            return output

        return hooked

    def _record_call(
        self,
        described: Callable[..., Called],
        given: tuple[Any, ...],
        output: Any,
        call_s: float,
        compiled: bool,
        frame: Any,
    ) -> None:
        inputs, outputs = _tensors(given), _tensors(output)
        line = self._log.frames.line(frame)
        model, device_type, training = described(given, inputs or outputs, line)
        state = training, torch.is_autocast_enabled(device_type)
        tensors: list[Any] = []  # flat, and no comprehension: this runs in each call
        try:
            for tensor in inputs:
                tensors += tensor.dtype, tensor.shape
        except RuntimeError:  # a nested tensor has no shape
            tensors += map(shape_of, inputs)
        for tensor in outputs:
            tensors += tensor.dtype, tensor.requires_grad
        seen = model, line, get_ident(), state, *tensors
        key, new_shape = self._keys.get(seen), False
        if key is None:  # rarely: making a key is slow
            new_shape = self._models.is_new_shape(model, inputs, outputs)
            key = self._keys[seen] = _key(model, line, *state, inputs, outputs)
        self._log.add_call(key, call_s, new_shape, compiled)

    def _record_failure(
        self, described: Callable[..., Called], given: tuple[Any, ...], error: Exception, frame: Any
    ) -> None:
        """Record a call that raised; an exception of the script's own may be how it ends a call."""
        if type(error).__module__ == "__main__":
            return
        with contextlib.suppress(Exception):  # the script is to see its own error
            inputs, line = _tensors(given), self._log.frames.line(frame)
            model, device_type, training = described(given, inputs, line)
            state = training, torch.is_autocast_enabled(device_type)
            key = _key(model, line, *state, inputs, ())
            self._log.add_call(key._replace(error=one_line(error)[:_ERROR_KEPT]), 0.0, False)

    def _record_operations(self, start: int, end: int, frame: FrameType, repetitions: int) -> None:
        """Record the operations of a timing in which nothing else was called."""
        if self._searches >= _MOST_SEARCHES:
            return
        self._searches += 1
        try:
            first, last = self._log.lines_of_reading(start), self._log.lines_of_reading(end)
            found = find_operations(first, last, frame, self._log.frames)
            if found is not None:
                key = self._operations_key(found, last[0])
                self._log.add_operations(end, key, found.count * repetitions)
        except Exception as exc:  # an error of ours must not reach the script
            self._log.observer_error = one_line(exc)

    def _operations_key(self, found: Operations, line: Line) -> CallKey:
        model, device_type = self._models.operations_number(found, line)
        autocast = torch.is_autocast_enabled(device_type)
        return _key(model, line, False, autocast, (*found.inputs, *found.others), found.outputs)


def _key(
    model: int,
    line: Line,
    training: bool,
    autocast: bool,
    inputs: Iterable[torch.Tensor],
    outputs: Iterable[torch.Tensor],
) -> CallKey:
    """The group of a call by this thread."""
    return CallKey(
        model,
        line,
        get_ident(),
        training,
        any(tensor.requires_grad for tensor in outputs),
        autocast,
        tuple(tensor.dtype for tensor in inputs),
        tuple(tensor.dtype for tensor in outputs),
    )


def _compiled_graphs() -> int:
    """How many graphs `torch.compile` has compiled."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def _tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested containers; `torchtools.tensors` does more, at a higher cost."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        if not hasattr(type(value), "__dataclass_fields__"):
            return []
        value = getattr(value, "__dict__", {}).values()
    found: list[torch.Tensor] = []
    for part in value:
        if isinstance(part, torch.Tensor):
            found.append(part)
        elif isinstance(part, (dict, list, tuple)):
            found += _tensors(part)
    return found


def _modules(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _modules(part)
