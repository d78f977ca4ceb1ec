"""Watches torch while a script runs: calls of models, copies and waits, patches of torch.

Only outermost calls of modules are looked at; those inside pay one look at a flag. Module hooks
would be seen by every layer and switch torch's fast paths off.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from time import perf_counter  # torch's clock before it is watched, whoever imports us
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.errors import one_line
from precisionbench.scriptcheck.device import Cuda, DeviceAccess
from precisionbench.scriptcheck.event_log import Log, dtype_name, place_of
from precisionbench.scriptcheck.events import Ending, Model, Observations
from precisionbench.torchtools.global_state import Functions, has_tf32, tf32_operations

_PATCHABLE = ("torch.nn.functional.", "torch.Tensor.", "torch.nn.modules.rnn.")
_NAMES_KEPT = 3
# They say most to a reader.
_TELLING = ("torch.nn.functional.conv2d", "torch.nn.functional.linear", "torch.matmul")
_FETCHES = ("item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__")
_CONVOLUTIONS = (nn.modules.conv._ConvNd, nn.RNNBase)
_MATMULS = (nn.Linear, nn.Bilinear, nn.MultiheadAttention)
_BY_MODE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)
_HELD_BYTES = 1 << 26
_PATCHING_LEVEL = "O1"  # of Apex


class Observer:
    """Watches torch from now on.

    Args:
        log: takes down what is seen.
        device: of the script.
    """

    def __init__(self, log: Log, device: DeviceAccess | None = None) -> None:
        self.log = log
        self.device = log.device = device or Cuda()
        self._inside = False
        self._models: list[Model] = []
        self._numbers: dict[tuple[Any, ...], tuple[weakref.ref[nn.Module], int]] = {}
        self._parameters: dict[int, tuple[weakref.ref[nn.Module], weakref.ref[torch.Tensor]]] = {}
        self._shapes: set[tuple[Any, ...]] = set()
        self._first: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        self._by_design: list[weakref.ref[nn.Module]] = []
        self._watch_calls()
        self._watch_waits()
        self._watch_events()
        self._watch_gradients()
        self._settings = tf32_operations()
        self._patches = _Patches()

    def finished(self, ending: Ending) -> Observations:
        """Everything that was seen.

        Args:
            ending: how the script ended.
        """
        with contextlib.suppress(RuntimeError):  # a device that is lost has nothing to say
            self.device.wait()
        models = tuple(
            _judged(model, *self._first.get(number, ([], [])))
            for number, model in enumerate(list(self._models))
        )
        gpu = torch.cuda.get_device_name() if torch.cuda.is_initialized() else ""
        return self.log.frozen(ending, models, str(torch.__version__), gpu)

    def watch_apex(self, amp: Any) -> None:
        """Note which models are given to Apex with a level that patches torch.

        Args:
            amp: the module `apex.amp`.
        """
        initialize = amp.initialize

        @functools.wraps(initialize)
        def watched(models: Any, *args: Any, **kwargs: Any) -> Any:
            level = kwargs.get("opt_level", args[1] if len(args) > 1 else _PATCHING_LEVEL)
            given = initialize(models, *args, **kwargs)
            if level == _PATCHING_LEVEL:
                first = given[0] if isinstance(given, tuple) else given
                found = (first if isinstance(first, list) else [first], models)
                self._by_design += [weakref.ref(m) for m in _modules(found)]
            return given

        amp.initialize = watched

    def _watch_calls(self) -> None:
        call = nn.Module.__call__

        @functools.wraps(call)
        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._inside or torch._C._is_tracing():
                return call(module, *args, **kwargs)
            self._inside = True
            try:
                begin = perf_counter()
                output = call(module, *args, **kwargs)
                took_s = perf_counter() - begin
            finally:
                self._inside = False
            try:
                given = (*args, *kwargs.values())
                self._saw(module, given, output, took_s, sys._getframe(1))
            except Exception as exc:  # whatever it is, the script must not feel it
                self.log.fault = one_line(exc)
            self.log.spent(perf_counter() - begin - took_s)
            return output

        nn.Module.__call__ = watched  # type: ignore[method-assign]

    def _saw(self, module: nn.Module, given: Any, output: Any, took_s: float, frame: Any) -> None:
        inputs, outputs = _tensors(given), _tensors(output)
        where = self.log.frames.place(frame)
        model, kind = self._number(module, where)
        shapes = (model, *[(tensor.dtype, tensor.shape) for tensor in inputs])
        fresh = shapes not in self._shapes
        if fresh:
            self._shapes.add(shapes)
            self._first.setdefault(model, (_held(inputs), _held(outputs)))
        key = (
            model,
            where,
            module.training,
            any(tensor.requires_grad for tensor in outputs),
            torch.is_autocast_enabled(kind),
            tuple([tensor.dtype for tensor in inputs]),
            tuple([tensor.dtype for tensor in outputs]),
        )
        self.log.called(key, took_s, fresh)

    def _number(self, module: nn.Module, where: tuple[str, int]) -> tuple[int, str]:
        """The model's number, and the kind of device that it is on."""
        parameter = self._parameter(module)
        kind = "cpu" if parameter is None else parameter.device.type
        self._patches.look_where_probed()
        state = None if parameter is None else (parameter.dtype, kind)
        known, number = self._numbers.get((id(module), state, self._patches.epoch), (None, -1))
        if known is None or known() is not module:
            if parameter is not None:
                self.device.follow(parameter.device)
                self._patches.look()
            number = len(self._models)
            self._numbers[id(module), state, self._patches.epoch] = weakref.ref(module), number
            self._models.append(self._described(module, number, where))
        return number, kind

    def _parameter(self, module: nn.Module) -> torch.Tensor | None:
        """The first of a module's parameters; to look it up takes longer than anything else."""
        owner, known = self._parameters.get(id(module), (None, None))
        parameter = (
            known() if known is not None and owner is not None and owner() is module else None
        )
        if parameter is None:
            parameter = next(module.parameters(), None)
            if parameter is not None:
                self._parameters[id(module)] = weakref.ref(module), weakref.ref(parameter)
        return parameter

    def _described(self, module: nn.Module, number: int, where: tuple[str, int]) -> Model:
        parameters: Counter[str] = Counter()
        for parameter in module.parameters():
            parameters[dtype_name(parameter.dtype)] += parameter.numel()
        first = next(module.parameters(), None)
        layers = list(module.modules())
        used = {
            "convolutions": any(isinstance(layer, _CONVOLUTIONS) for layer in layers),
            "matmuls": any(isinstance(layer, _MATMULS) for layer in layers),
        }
        allowed = tf32_operations()
        on_tf32 = first is not None and first.is_cuda and has_tf32(first.device)
        patches = self._patches.names if parameters else ()
        telling = sorted(patches, key=lambda name: name not in _TELLING)
        return Model(
            kind=type(getattr(module, "_orig_mod", module)).__name__,
            place=place_of(where),
            parameters=dict(parameters),
            device=str(first.device) if first is not None else "",
            patched=tuple(telling[:_NAMES_KEPT]),
            patches=len(patches),
            patched_for=self._patches.belong_to(number) if patches else None,
            by_design=any(ref() is module for ref in self._by_design),
            mode_layers=sum(isinstance(layer, _BY_MODE) for layer in layers),
            tf32=tuple(name for name in allowed if used[name] and on_tf32),
            tf32_asked=allowed != self._settings,
        )

    def _watch_waits(self) -> None:
        for name in _FETCHES:
            _replace(torch.Tensor, name, functools.partial(self._fetching, name))
        for name in ("to", "cuda"):
            _replace(torch.Tensor, name, self._moving)

    def _fetching(self, name: str, fetch: Callable[..., Any]) -> Callable[..., Any]:
        kind = f"{name.strip('_')}()" if name.startswith("_") else f".{name}()"

        @functools.wraps(fetch)
        def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.device.holds(tensor):
                self.log.waited(kind, sys._getframe(1), self._inside)
            return fetch(tensor, *args, **kwargs)

        return watched

    def _moving(self, move: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(move)
        def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            moved = move(tensor, *args, **kwargs)
            before, after = self.device.holds(tensor), self.device.holds(moved)
            if before != after:
                kind = ".to('cuda')" if after else ".to('cpu')"
                self.log.waited(kind, sys._getframe(1), self._inside)
            return moved

        return watched

    def _watch_events(self) -> None:
        """A script that times with CUDA events reads a clock, too."""
        _replace(torch.cuda.Event, "record", self._recording)
        _replace(torch.cuda.Event, "elapsed_time", self._elapsing)

    def _recording(self, record: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(record)
        def watched(event: Any, *args: Any, **kwargs: Any) -> Any:
            result = record(event, *args, **kwargs)
            frame = sys._getframe(1)
            if self.log.frames.is_users(frame):
                event._reading = self.log.read("torch.cuda.Event", 0.0, frame, ask=False)
            return result

        return watched

    def _elapsing(self, elapsed_time: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(elapsed_time)
        def watched(event: Any, end: Any) -> Any:
            elapsed_ms = elapsed_time(event, end)
            first, second = getattr(event, "_reading", None), getattr(end, "_reading", None)
            if first is not None and second is not None:
                self.log.difference(first, second, elapsed_ms / 1e3, sys._getframe(1))
            return elapsed_ms

        return watched

    def _watch_gradients(self) -> None:
        def going(backward: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(backward)
            def watched(*args: Any, **kwargs: Any) -> Any:
                self.log.went_backward()
                return backward(*args, **kwargs)

            return watched

        _replace(torch.autograd, "backward", going)
        _replace(torch.autograd, "grad", going)


class _Patches:
    """Functions of torch that are not those that it came with, and which model had them first."""

    def __init__(self) -> None:
        self._before = Functions.now()
        self._probe = _probe()
        self._owner: int | None = None
        self._functions: list[object] = []
        self.names: tuple[str, ...] = ()
        self.epoch = 0

    def look_where_probed(self) -> None:
        """Look at all functions where one of the most important has changed."""
        probe = _probe()
        if probe != self._probe:
            self._probe = probe
            self.look()

    def look(self) -> None:
        """Look at all functions; other patches than before begin a new epoch."""
        names = tuple(name for name in self._before.changes() if _is_patchable(name))
        functions = [_found(name) for name in names]
        if names != self.names or [*map(id, functions)] != [*map(id, self._functions)]:
            self.names, self._functions = names, functions
            self._owner = None
            self.epoch += 1

    def belong_to(self, model: int) -> int:
        """The first model that ran with them."""
        if self._owner is None:
            self._owner = model
        return self._owner


def _probe() -> tuple[object, ...]:
    """A patch of other functions comes with a new model, or goes unseen until one comes."""
    return nn.functional.conv2d, nn.functional.linear, torch.matmul


def _is_patchable(name: str) -> bool:
    return name.startswith(_PATCHABLE) or name.count(".") == 1


def _found(name: str) -> object:
    try:
        return attrgetter(name.partition(".")[2])(torch)
    except AttributeError:  # an entry of a dictionary, or a function that was taken away
        return None


def _replace(owner: Any, name: str, watching: Callable[[Any], Callable[..., Any]]) -> None:
    setattr(owner, name, watching(getattr(owner, name)))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for part in value for tensor in _tensors(part)]


def _modules(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _modules(part)


def _held(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Kept to be looked at once the script has ended; large ones are let go."""
    floating = (tensor for tensor in tensors if tensor.is_floating_point())
    return [t.detach() for t in floating if t.numel() * t.element_size() <= _HELD_BYTES]


def _judged(model: Model, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> Model:
    """The model with what its first input and output say."""
    with contextlib.suppress(RuntimeError):
        return _looked_at(model, inputs, outputs)
    return model


def _looked_at(model: Model, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> Model:
    elements = sum(tensor.numel() for tensor in outputs)
    broken = sum(int((~torch.isfinite(tensor)).sum()) for tensor in outputs)
    share = broken / elements if elements else None
    values = {_constant(tensor) for tensor in inputs if tensor.numel() > 1}
    constant = values.pop() if len(values) == 1 else None
    return attrs.evolve(model, non_finite=share, constant_input=constant)


def _constant(tensor: torch.Tensor) -> float | None:
    first = tensor.flatten()[0]
    return float(first) if bool((tensor == first).all()) else None
