"""Prepares a backend in this process: the common options, the plugin's `prepare`, first calls."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial

import attrs
import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture
from precisionbench.backends import Backend, Prepared
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PreparationError,
    one_line,
)
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.measure.worker.first_calls import (
    FirstCalls,
    run_first_calls,
    suitable_timer,
)
from precisionbench.measure.worker.guards import (
    checked_call,
    executing,
    leaks_refused,
    preparing,
)
from precisionbench.measure.worker.loading import Loaded, Turn, common_settings, loaded
from precisionbench.measure.worker.protocol import KnownCalls, Opening
from precisionbench.measure.worker.session import Session, clock_fields
from precisionbench.model.workload import Workload
from precisionbench.probes.graphs import Replay
from precisionbench.probes.growth import state_bytes
from precisionbench.probes.layers import eager_module
from precisionbench.probes.run_all import l2_flush
from precisionbench.results.evidence import Operation
from precisionbench.results.json_values import Json, as_json
from precisionbench.system.memory import free_device_bytes
from precisionbench.torchtools.global_state import (
    gradients_off,
    read_flags,
    recompile_limit_lifted,
    seed_everything,
)
from precisionbench.torchtools.timer import Call, CudaEventClock, Timer

_MOST_DETAILS = 1_000_000  # characters of JSON that a plugin may say of its engine


@contextlib.contextmanager
def opened(
    backend: Backend,
    workload: Workload,
    timer: Timer,
    on_step: Callable[[str], object] = lambda _: None,
    known: KnownCalls | None = None,
    load: Callable[[], Loaded] | None = None,
    limit: WarmCallLimit | None = None,
    turn: Turn = contextlib.nullcontext,
) -> Iterator[Session]:
    """Prepare a backend in this process, call it once, and undo it on leaving.

    Args:
        backend: what to prepare.
        workload: the model and inputs; copies are used.
        timer: times the calls on the workload's device.
        on_step: called with a description of each step before it begins.
        known: what an earlier replica has shown of its calls; this one is prepared beside others,
            so that the driver's memory says nothing of it.
        load: gives the copies of the model and inputs; None makes them now.
        limit: how long a warm call may take; None: any time.
        turn: entered while it computes on a CPU, where the threads of several would wait for each
            other.

    Raises:
        BackendUnavailableError: this machine cannot run it.
        PreparationError: `prepare` failed.
        ExecutionError: the first call failed.
        OutOfMemoryError: it does not fit.
        DeviceError: the device stopped responding.
        StateLeakError: the plugin left torch patched.
        SlowCallError: a warm call is beyond the limit.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(common_settings(backend, workload, timer))
        ready = load() if load else loaded(backend, workload, timer, on_step)
        workload, output = ready.workload, ready.output
        on_cpu = workload.device.type == "cpu"
        with output.capturing():
            free = free_device_bytes(workload.device)
            seed_everything(workload.seed)
            stack.enter_context(recompile_limit_lifted())
            stack.enter_context(leaks_refused())
            prepare = partial(stack.enter_context, preparing(backend, *ready.parts, output))
            with contextlib.ExitStack() as alone:
                if on_cpu and not backend.tunes_by_timing:  # it computes, and compiles nothing
                    alone.enter_context(turn())
                on_step("building")
                prepared, build_s = timer.once(prepare)
                stack.enter_context(gradients_off(backend.grad_mode))
                call = checked_call(prepared)
                module = prepared.module if isinstance(prepared, Prepared) else None
                state = partial(state_bytes, call, module)
                if on_cpu and backend.tunes_by_timing:
                    alone.enter_context(turn())
                with executing(call):
                    first = run_first_calls(
                        backend, call, build_s, timer, on_step, known, state, limit
                    )
                    taken = None if known else _bytes_taken(ready.bytes, free, workload.device)
        session = _session(backend, workload, timer, first, prepared, output)
        yield attrs.evolve(session, driver_bytes=taken)


def _bytes_taken(loaded: int, free_before: int | None, device: torch.device) -> int | None:
    """Device memory of what was loaded, and taken since `free_before` bytes were free."""
    free = free_device_bytes(device)
    return None if free_before is None or free is None else loaded + max(0, free_before - free)


def _session(
    backend: Backend,
    workload: Workload,
    timer: Timer,
    first: FirstCalls,
    prepared: object,
    output: OutputCapture,
) -> Session:
    """A session whose clock can time the call."""
    events = timer.clock if isinstance(timer.clock, CudaEventClock) else None
    cold = backend.l2_cache == "cold"
    timer = suitable_timer(timer, first.labels)
    if first.growth:
        output.warn(first.growth)
    return Session(
        opening=_opening(backend, workload, timer, first, prepared, output),
        timer=timer,
        call=first.call,
        output=first.output,
        output_capture=output,
        events=events,
        workload=workload,
        flush=l2_flush(events.device) if events and cold else None,
        module=_profiled_module(prepared, first.call),
        inputs=prepared.inputs if isinstance(prepared, Prepared) else None,
    )


def _opening(
    backend: Backend,
    workload: Workload,
    timer: Timer,
    first: FirstCalls,
    prepared: object,
    output: OutputCapture,
) -> Opening:
    return Opening(
        **clock_fields(timer, cold=backend.l2_cache == "cold"),
        build_s=first.times.build_s,
        first_call_s=first.times.first_call_s,
        **attrs.asdict(first.times.warm_up),
        flags={**read_flags(), "grad_mode": backend.grad_mode},
        details=_json_details(prepared, output),
        engine_operations=_engine_operations(prepared),
        labels=first.labels,
        batch_size=workload.info.batch_size,
    )


def _json_details(prepared: object, output: OutputCapture) -> dict[str, Json]:
    """What the plugin says of its engine; left out with a warning where it is too much."""
    if not isinstance(prepared, Prepared):
        return {}
    try:
        details: dict[str, Json] = as_json(dict(prepared.details))
        size = len(json.dumps(details))
    except FOREIGN_ERRORS as exc:  # not a mapping, or one that contains itself
        raise PreparationError(
            f"its details cannot be recorded ({one_line(exc)})",
            "return a dict of plain values",
        ) from exc
    if size > _MOST_DETAILS:
        output.warn(f"its details were not recorded: {size / 1e6:.1f} MB, and the limit is 1 MB")
        return {}
    return details


def _profiled_module(prepared: object, call: Call) -> nn.Module | None:
    """The module whose layers are profiled; a graph's replay runs none of the module's Python."""
    if not isinstance(prepared, Prepared) or isinstance(call, Replay):
        return None
    return eager_module(prepared.module)


def _engine_operations(prepared: object) -> tuple[Operation, ...]:
    """The layers that the engine reports; a plugin may give anything."""
    if not isinstance(prepared, Prepared):
        return ()
    found = tuple(prepared.engine_operations)
    if not all(isinstance(one, Operation) for one in found):
        raise PreparationError(
            "its engine_operations are not all of the class Operation",
            "return operations of precisionbench.results.evidence",
        )
    return found
