"""Profiles a call: kernels by torch's profiler, FLOPs, and each layer's tensors."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import torch
from torch import nn

from precisionbench._internal.paths import quoted
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import FOREIGN_ERRORS, OutputError, one_line
from precisionbench.model.workload import Workload
from precisionbench.probes.call_times import slow_calls
from precisionbench.probes.denormals import denormals_of
from precisionbench.probes.layers import Forward, wrapped
from precisionbench.probes.trace import CALL, LAYER, profile_of
from precisionbench.results.dtypes import dtype_name
from precisionbench.results.evidence import Evidence, Layer, Tensor
from precisionbench.statistics.periodic import Periodic
from precisionbench.system.memory import device_allocations
from precisionbench.torchtools.global_state import dynamo_not_imported_by, foreign_functions
from precisionbench.torchtools.tensors import Inputs, walk
from precisionbench.torchtools.timer import Call, HostClock

_PROFILE_S = 0.2  # of calls, about
_MOST_CALLS = 5  # reading the trace takes longer than the calls
_MOST_PARTS = 5000  # modules times calls: traces grow with both
_KINETO = "KINETO_LOG_LEVEL"
_TRITON = "triton"


def collect_evidence(
    call: Call, call_s: float, workload: Workload, module: nn.Module | None
) -> Evidence:
    """Profile a call; `unknown` holds the reason for each part that could not be recorded.

    Args:
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        workload: what it was prepared from.
        module: the model behind it, where there is one in eager mode.
    """
    unknown: dict[str, str] = {}
    found: dict[str, Any] = {"foreign_functions": foreign_functions()}
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "allocations": lambda: allocations(call, workload.device),
        "calls": lambda: slow_calls(call, HostClock(workload.device)),
        "profile": lambda: profiled(call, call_s, workload.device, module, found.get("slow_calls")),
        "layers": lambda: layers_of(call, module),
        "denormals": lambda: denormals_of(call, module, workload.device),
        "inputs": lambda: {"input_zero_share": zero_share(workload.inputs)},
        "flops": lambda: counted(call, module, found.get("layers", ())),
    }
    took_s: dict[str, float] = {}
    for name, step in steps.items():
        begun_s = time.monotonic()
        try:
            found.update(step())
        except FOREIGN_ERRORS as exc:
            unknown[name] = one_line(exc)
        took_s[name] = time.monotonic() - begun_s
    return Evidence(**found, unknown=unknown, took_s=took_s)


def start_profiler(device: torch.device) -> None:
    """Let the profiler start its machinery, so that `collect_evidence` need not wait for it.

    Args:
        device: that will be profiled.
    """
    with _without_triton():
        import torch.utils.flop_counter

    with contextlib.suppress(*FOREIGN_ERRORS), _profiler(device):
        torch.zeros(1, device=device).add_(1)


@contextlib.contextmanager
def _without_triton() -> Iterator[None]:
    """Hide Triton where it is not imported yet: its library of 500 MB takes up to 4 s to load.

    `torch.utils.flop_counter` imports it for formulas of Triton kernels, and a worker without it
    has none. It warns of that.
    """
    logger = logging.getLogger("torch.utils.flop_counter")
    if _TRITON in sys.modules or logger.name in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules  # None: an import fails
    modules[_TRITON], level = None, logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        del modules[_TRITON]
        logger.setLevel(level)


@contextlib.contextmanager
def _profiler(device: torch.device) -> Iterator[torch.autograd.profiler.profile]:
    """What `torch.profiler` wraps, which imports TorchInductor: seconds on a slow file system."""
    with (
        _no_warnings(),
        torch.autograd.profiler.profile(
            use_device=device.type if device.type == "cuda" else None,
            use_kineto=True,
            record_shapes=True,
        ) as profiler,
    ):
        yield profiler
        _drain(device)


def zero_share(inputs: Inputs) -> float | None:
    """The share of zeros in the largest input, where that is floating-point data.

    Smaller inputs of zeros, such as masks and states, are normal, and so are caches of any size.
    """
    plain = walk((inputs.args, inputs.kwargs))  # without tensors in objects
    largest = max((tensor for _, tensor in plain), key=torch.Tensor.numel, default=None)
    if largest is None or not largest.is_floating_point() or not largest.numel():
        return None
    return float((largest == 0).double().mean())


def allocations(call: Call, device: torch.device) -> dict[str, Any]:
    """The number of cudaMalloc in a call; a field of `Evidence`."""
    if device.type != "cuda":
        return {}
    before = device_allocations()
    call()
    call()
    return {"device_allocations": (device_allocations() - before) / 2}


def profiled_calls(call_s: float) -> int:
    """How many calls are profiled of a model that is not too large for its trace.

    Args:
        call_s: about how long a call takes, in seconds.
    """
    return max(1, min(_MOST_CALLS, round(_PROFILE_S / call_s)))


def profiled(
    call: Call,
    call_s: float,
    device: torch.device,
    module: nn.Module | None,
    slow: Periodic | None = None,
) -> dict[str, Any]:
    """Kernels, operations and copies of a call; fields of `Evidence`.

    The first of the calls is left out: the profiler itself is then still starting.

    Args:
        call: one forward pass, warm.
        call_s: about how long it takes, in seconds.
        device: where it runs.
        module: the model behind it, where there is one in eager mode.
        slow: the period of slow calls, so that one of them is profiled, too.
    """
    parts = sum(1 for _ in module.modules()) if module is not None else 0
    wanted = max(profiled_calls(call_s), slow.period if slow else 0)
    calls = max(1, min(wanted, _MOST_PARTS // (parts + 1)))
    with _profiler(device) as profiler, _annotated(module):
        for _ in range(1 + calls):
            with torch.profiler.record_function(CALL):
                call()
            _drain(device)
    found = profile_of(_exported(profiler), skip=1)
    if not marks_compiled_graphs():
        found = attrs.evolve(found, compiled_share=None)
    return {field.name: getattr(found, field.name) for field in attrs.fields(type(found))}


def marks_compiled_graphs() -> bool:
    """Whether torch's profiler records which part of a call is in compiled graphs.

    Before torch 2.9 it does not, and compiled code seems to be outside of all graphs.
    """
    return bool(torch.__version__ >= "2.9")  # a TorchVersion: 2.14 is newer than 2.9


def _drain(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Suppress the profiler's own warnings and messages."""
    before = dict(os.environ)
    os.environ.setdefault(_KINETO, "99")  # read when it is first used
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in set(os.environ) - set(before):  # what torch adds for itself, too
            del os.environ[name]


def _exported(profiler: Any) -> Any:
    with TemporaryFolder() as folder:
        file = folder / "trace.json"
        profiler.export_chrome_trace(str(file))  # which raises nothing on a full disk
        try:
            return json.loads(file.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError) as exc:
            raise OutputError(
                f"the trace in {quoted(folder.parent)} is incomplete ({type(exc).__name__})",
                "free space there, or set TMPDIR to another folder",
            ) from exc


@contextlib.contextmanager
def _annotated(module: nn.Module | None) -> Iterator[None]:
    def wrap(path: str, _: nn.Module, forward: Forward) -> Forward:
        def annotated(*args: Any, **kwargs: Any) -> Any:
            with torch.profiler.record_function(LAYER + path):
                return forward(*args, **kwargs)

        return annotated

    with wrapped(module, wrap):
        yield


def layers_of(call: Call, module: nn.Module | None) -> dict[str, Any]:
    """The model's outputs, and the modules that run in a call in the order in which they first
    begin; fields of `Evidence`."""
    observed: dict[str, list[Any]] = {}

    def wrap(path: str, part: nn.Module, forward: Forward) -> Forward:
        def observing(*args: Any, **kwargs: Any) -> Any:
            mine = observed.setdefault(path, [part, (), (), 0])
            output = forward(*args, **kwargs)
            mine[1:] = _tensors((args, kwargs)), _tensors(output), mine[3] + 1
            return output

        return observing

    with wrapped(module, wrap):
        output = call()
    layers = tuple(
        Layer(
            path=path,
            kind=type(part).__name__,
            inputs=inputs,
            outputs=outputs,
            parameters=tuple(_tensor(p) for p in part.parameters(recurse=False)),
            calls=count,
            buffers=_buffers(part),
        )
        for path, (part, inputs, outputs, count) in observed.items()
    )
    return {"layers": layers, "outputs": _tensors(output)}


def _buffers(part: nn.Module) -> tuple[Tensor, ...]:
    attributes = (value for value in vars(part).values() if isinstance(value, torch.Tensor))
    return tuple(_tensor(one) for one in (*part.buffers(recurse=False), *attributes))


def _tensors(tree: Any) -> tuple[Tensor, ...]:
    return tuple(_tensor(tensor) for _, tensor in walk(tree))


def _tensor(tensor: torch.Tensor) -> Tensor:
    return Tensor(tuple(tensor.shape), dtype_name(tensor.dtype))


class _Untracked(contextlib.nullcontext[None]):
    """Instead of the counter's own hooks on modules.

    They fail without gradients where a module is given a parameter, as parametrizations are. Which
    module an operation is in is known from `wrapped`.
    """

    parents = ("Global",)


def counted(call: Call, module: nn.Module | None, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """FLOPs by `torch.utils.flop_counter`; fields of `Evidence`.

    It counts what its registry knows and silently skips everything else, so the names of what it
    counted are recorded. Compiled and scripted models would not run as they do.
    """
    if module is None or any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        return {}
    from torch.utils.flop_counter import FlopCounterMode

    by_layer: dict[str, float] = {}
    finished = [0.0]  # of layers that have returned, nested ones included

    def wrap(path: str, _: nn.Module, forward: Forward) -> Forward:
        def counting(*args: Any, **kwargs: Any) -> Any:
            before, inner = counter.get_total_flops(), finished[0]
            try:
                return forward(*args, **kwargs)
            finally:
                own = counter.get_total_flops() - before - (finished[0] - inner)
                by_layer[path] = by_layer.get(path, 0.0) + own
                finished[0] += own

        return counting

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = cast(Any, _Untracked())
    with (
        _no_warnings(),
        counter,
        dynamo_not_imported_by(type(getattr(counter, "mode", counter))),
        wrapped(module, wrap),
    ):
        call()
    names = counter.get_flop_counts().get("Global", {})
    return {
        "flops": float(counter.get_total_flops()),
        "counted": tuple(sorted(str(name) for name in names)),
        "layers": tuple(attrs.evolve(one, flops=by_layer.get(one.path, 0.0)) for one in layers),
    }
