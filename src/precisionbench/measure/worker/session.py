"""A backend that is prepared and ready to be timed block by block."""

from __future__ import annotations

import contextlib
import itertools
import time
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any, cast

import attrs
import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture, silence
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.backends.batch_norm_folding import folded
from precisionbench.errors import (
    FOREIGN_ERRORS,
    DeviceError,
    ExecutionError,
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    one_line,
    some,
)
from precisionbench.measure.worker.graph_capture import captured
from precisionbench.measure.worker.protocol import Closing, Opening
from precisionbench.model.workload import Workload
from precisionbench.probes.event_timing_checks import qualify
from precisionbench.probes.float64_reference import errors, truth
from precisionbench.probes.graphs import Replay
from precisionbench.probes.layers import eager_module
from precisionbench.probes.profiler import look
from precisionbench.probes.run_all import l2_flush, take_passes
from precisionbench.results.evidence import Evidence
from precisionbench.results.records import Json, Passes, as_json
from precisionbench.system.memory import device_allocations, free_device_bytes
from precisionbench.torchtools.agreement import compare_tensors, cpu_copies, differs
from precisionbench.torchtools.global_state import (
    Functions,
    autocast_off,
    compilations,
    cudnn_benchmark,
    fp32_precision,
    gradients_off,
    read_flags,
    recompile_limit_lifted,
    seed_everything,
)
from precisionbench.torchtools.tensors import arrange
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock, Timer

# Two calls of the same half-precision model on the same inputs differ by less than this, whatever
# order its sums are taken in; float16 rounds to 5e-4.
_STEADY_ERROR = 1e-2
# Calls in a row without a compilation or an allocation, and how long they are waited for.
_QUIET_CALLS = 3
_MAX_WARMUP_CALLS = 50
_WARMUP_LIMIT_S = 10.0


@attrs.frozen
class Session:
    """A prepared in this process.

    Attributes:
        opening: what it said of itself when it was opened.
        timer: times its calls.
        call: one forward pass.
        output: the tensors of the first call's output by their paths, on the CPU.
        record: what a reader must know, and what others printed, the plugin's cleanup included.
        events: the clock of the passes that need CUDA events; None without a GPU.
        flush: empties the L2 cache before each sample; None where it stays warm.
        driver_bytes: device memory taken while it was opened; None where that is not told.
        workload: what it was prepared from.
        module: the model behind the call, where the plugin gave one.
    """

    opening: Opening
    timer: Timer
    call: Call
    output: Mapping[str, torch.Tensor]
    record: OutputCapture
    events: CudaEventClock | None
    flush: Call | None = None
    driver_bytes: int | None = None
    workload: Workload | None = None
    module: nn.Module | None = None

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`.

        Raises:
            ExecutionError: a call failed.
            MeasurementError: the clock did not move forward.
        """
        with executing(), silence():
            return self.timer.block(
                self.call, samples, calls_per_sample, settle_calls, flush=self.flush
            )

    def check_steady(self) -> None:
        """Call once more, and note it where the output is no longer that of the first call.

        Raises:
            ExecutionError: the call failed.
        """
        with executing(), silence():
            last = cpu_copies(self.call())
        if differs(compare_tensors(last, self.output), _STEADY_ERROR):
            self.record.warn(
                "the last call's output is not the first's: the model is random, keeps state, or "
                "changes its inputs; agreement is that of the first call"
            )

    def passes(self, call_s: float, capture: bool) -> Passes:
        """Everything about a call that is not its latency, each in a pass of its own.

        Args:
            call_s: about how long a call takes, in seconds.
            capture: also try a CUDA graph; a capture that fails can spoil the process.

        Raises:
            ExecutionError: a call failed.
        """
        if self.events is None:
            return Passes()
        assert self.workload is not None
        inputs = [tensor for _, tensor in self.workload.inputs.tensors()]
        labels = self.opening.labels
        with executing(), silence():
            found = take_passes(self.events, self.call, call_s, labels, capture, inputs)
        return attrs.evolve(found, driver_bytes=self.driver_bytes)

    def looked_at_alone(self) -> Session:
        """The same with what only an undisturbed device can tell: its clock, and a call's length.

        The driver's memory is no longer told: others took theirs while this one was opened.

        Raises:
            ExecutionError: a call failed.
        """
        timer = Timer(self.events) if self.events else self.timer
        with executing(), silence():
            calls, call_s, cores_busy = warm_up(self.call, timer)
            labels = _labels(timer.clock, self.call)
        timer = _on_fitting_clock(timer, labels)
        opening = attrs.evolve(
            self.opening,
            clock=timer.clock.name,
            resolution_s=timer.clock.resolution_s,
            min_sample_s=0.0 if self.flush else timer.clock.min_sample_s,
            labels=labels,
            warmup_calls=self.opening.warmup_calls + calls,
            call_s=call_s,
            cores_busy=cores_busy,
        )
        return attrs.evolve(self, opening=opening, timer=timer, driver_bytes=None)

    def truth(self, path: str) -> None:
        """Write what the model's layers give in float64 to a file, for `evidence`.

        Args:
            path: of the file.

        Raises:
            ExecutionError: the model does not run in float64.
            PreparationError: torch is patched in this process.
        """
        assert self.workload is not None
        device_type = self.workload.device.type
        with executing(), silence(), autocast_off(device_type):  # the row's own, too
            torch.save(truth(self.workload), path)

    def evidence(self, call_s: float, truth_path: str | None) -> Evidence:
        """What runs in a call, and how far each layer's output is from float64's.

        Args:
            call_s: about how long a call takes, in seconds.
            truth_path: what `truth` wrote; None leaves the errors out.

        Raises:
            ExecutionError: a call failed.
        """
        assert self.workload is not None
        batch = self.workload.info.batch_size
        with executing(), silence():
            found = look(self.call, call_s, self.workload, self.module)
            if truth_path is None:
                return found
            expected = torch.load(truth_path, weights_only=False)
            try:
                return attrs.evolve(found, errors=errors(self.call, self.module, batch, expected))
            except FOREIGN_ERRORS as exc:
                unknown = {**found.unknown, "errors": one_line(exc)}
                return attrs.evolve(found, unknown=unknown)

    def closing(self) -> Closing:
        """What is known once it has been closed."""
        return Closing(self.record.warnings(), self.record.log())


@contextlib.contextmanager
def opened(
    backend: Backend,
    workload: Workload,
    timer: Timer,
    tell: Callable[[str], object] = lambda _: None,
) -> Iterator[Session]:
    """Prepare a backend in this process, call it once, and undo it afterwards.

    Args:
        backend: what to prepare.
        workload: the model and inputs; copies are used.
        timer: times the calls on the workload's device.
        tell: told of each step, before it begins.

    Raises:
        BackendUnavailableError: this machine cannot run it.
        PreparationError: `prepare` failed.
        ExecutionError: the first call failed.
        OutOfMemoryError: it does not fit.
        DeviceError: the device stopped answering.
        StateLeakError: the plugin left torch patched.
    """
    record = OutputCapture()
    with contextlib.ExitStack() as stack:
        stack.enter_context(common_settings(backend, workload, timer))
        with record.recording():
            check_available(backend)
            tell("loading the model")
            with executing():
                free = free_device_bytes(workload.device)
                workload = at_batch(backend, workload)
                model, inputs = _loaded(backend, workload, record)
            seed_everything(workload.seed)
            stack.enter_context(recompile_limit_lifted())
            stack.enter_context(leaks_refused())
            prepare = partial(stack.enter_context, preparing(backend, model, inputs, record))
            tell("building")
            prepared, build_s = timer.once(prepare)
            stack.enter_context(gradients_off(backend.grad_mode))
            call = checked_call(prepared)
            with executing():
                called = _called(backend, call, build_s, timer, tell)
                taken = _taken(free, workload.device)
        session = _session(backend, timer, called, prepared, record)
        opening = attrs.evolve(session.opening, batch_size=workload.info.batch_size)
        yield attrs.evolve(session, opening=opening, driver_bytes=taken, workload=workload)


def _loaded(
    backend: Backend, workload: Workload, record: OutputCapture
) -> tuple[nn.Module, Inputs]:
    """Copies of the model and inputs, as the backend's common options want them."""
    model, inputs = workload.make_model(), workload.make_inputs()
    model = folded(model) if backend.fold_batch_norm else model
    return in_memory_format(backend, model, inputs, record)


def at_batch(backend: Backend, workload: Workload) -> Workload:
    """The workload with as many items as the backend asks for.

    Raises:
        WorkloadError: it is not known what in the inputs is an item.
    """
    wanted = backend.batch_size
    if wanted is None or wanted == workload.info.batch_size:
        return workload
    return workload.with_batch(wanted)


def _module_to_look_into(prepared: object, call: Call) -> nn.Module | None:
    """A graph's replay runs none of the module's Python."""
    if not isinstance(prepared, Prepared) or isinstance(call, Replay):
        return None
    return eager_module(prepared.module)


def _taken(before: int | None, device: torch.device) -> int | None:
    after = free_device_bytes(device)
    return None if before is None or after is None else max(0, before - after)


@attrs.frozen
class _Times:
    build_s: float
    first_call_s: float
    warmup_calls: int
    call_s: float
    cores_busy: float


@attrs.frozen
class _Called:
    """What the first calls have told."""

    call: Call
    output: Mapping[str, torch.Tensor]
    labels: tuple[str, ...]
    times: _Times


def _called(
    backend: Backend, call: Call, build_s: float, timer: Timer, tell: Callable[[str], object]
) -> _Called:
    """Capture the call where that is wanted, call it for the first time, and warm it up."""
    if backend.cuda_graph:
        tell("capturing a CUDA graph")
        replay, capture_s = timer.once(partial(captured, timer.clock, call))
        call, build_s = cast(Replay, replay), build_s + capture_s
    tell("first call")
    first, first_call_s = timer.once(call)
    output = cpu_copies(_readable(first))
    del first  # a large output must not stay on the device
    tell("warm-up calls")
    times = _Times(build_s, first_call_s, *warm_up(call, timer))
    return _Called(call, output, _labels(timer.clock, call), times)


def _session(
    backend: Backend, timer: Timer, called: _Called, prepared: object, record: OutputCapture
) -> Session:
    """A session on the clock that the labels allow."""
    call, labels = called.call, called.labels
    events = timer.clock if isinstance(timer.clock, CudaEventClock) else None
    timer = _on_fitting_clock(timer, labels)
    cold = backend.l2_cache == "cold"
    opening = Opening(
        clock=timer.clock.name,
        resolution_s=timer.clock.resolution_s,
        min_sample_s=0.0 if cold else timer.clock.min_sample_s,
        flags={**read_flags(), "grad_mode": backend.grad_mode},
        details=_json_details(prepared),
        labels=labels,
        **attrs.asdict(called.times),
    )
    flush = l2_flush(events.device) if events and cold else None
    module = _module_to_look_into(prepared, call)
    return Session(opening, timer, call, called.output, record, events, flush, module=module)


def _on_fitting_clock(timer: Timer, labels: tuple[str, ...]) -> Timer:
    """The host's clock where events would not say how long the work takes."""
    clock = timer.clock
    return Timer(HostClock(clock.device)) if labels and isinstance(clock, CudaEventClock) else timer


def _labels(clock: object, call: Call) -> tuple[str, ...]:
    return qualify(clock, call) if isinstance(clock, CudaEventClock) else ()


def warm_up(call: Call, timer: Timer) -> tuple[int, float, float]:
    """Call until some calls in a row neither compile nor take memory from the device.

    Args:
        call: one forward pass, called before.
        timer: of the device.

    Returns:
        The calls made, about how many seconds the last ones took each, and how many CPU cores
        they kept busy.
    """
    end_s = time.monotonic() + _WARMUP_LIMIT_S
    calls, quiet = 0, 0
    while quiet < _QUIET_CALLS and calls < _MAX_WARMUP_CALLS and time.monotonic() < end_s:
        before = (compilations(), device_allocations())
        call()
        calls += 1
        quiet = quiet + 1 if (compilations(), device_allocations()) == before else 0
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    call_s = median(timer.block(call, _QUIET_CALLS))
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return calls + _QUIET_CALLS, call_s, cpu_s / wall_s


@contextlib.contextmanager
def common_settings(backend: Backend, workload: Workload, timer: Timer) -> Iterator[None]:
    """What holds around `prepare` and every call of any backend, unless its plugin sets more."""
    with (
        autocast_off(workload.device.type),
        timer.clock.active(),
        fp32_precision("ieee"),
        cudnn_benchmark(backend.cudnn_benchmark),
    ):
        yield


def check_available(backend: Backend) -> None:
    """Ask the plugin whether it can run; anything else it raises becomes a PreparationError."""
    try:
        backend.check_available()
    except PrecisionBenchError:
        raise
    except FOREIGN_ERRORS as exc:
        raise PreparationError(f"its check_available failed ({one_line(exc)})") from exc


def in_memory_format(
    backend: Backend, model: nn.Module, inputs: Inputs, record: OutputCapture
) -> tuple[nn.Module, Inputs]:
    """The model and inputs in the backend's memory format, whatever they were in before."""
    arrangeable = [tensor for _, tensor in inputs.tensors() if tensor.dim() in (4, 5)]
    if backend.memory_format == "channels_last" and not arrangeable:
        record.warn("channels_last changes nothing here: no input has 4 or 5 dimensions")
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        data = tensor.data
        if (arranged := arrange(data, backend.memory_format)) is not data:
            tensor.data = arranged
    return model, inputs.in_memory_format(backend.memory_format)


@contextlib.contextmanager
def preparing(
    backend: Backend, model: nn.Module, inputs: Inputs, record: OutputCapture
) -> Iterator[Any]:
    """Enter the plugin's `prepare`; whatever it raises on the way in is a PreparationError."""
    try:
        manager = backend.prepare(model, inputs)
        if isinstance(manager, types.GeneratorType):
            raise PreparationError(
                "its prepare is a plain generator", "decorate it with @contextlib.contextmanager"
            )
        prepared = manager.__enter__()
    except PrecisionBenchError:
        raise
    except FOREIGN_ERRORS as exc:
        _raise_if_out_of_memory(exc)
        raise PreparationError(f"it could not prepare the model ({one_line(exc)})") from exc
    with manager_left(manager, record):
        yield prepared


@contextlib.contextmanager
def manager_left(
    manager: contextlib.AbstractContextManager[Any], record: OutputCapture
) -> Iterator[None]:
    """Leave an entered context manager whatever happens, as `with` would.

    The plugin's cleanup is told of no exception: a generator without try/finally would otherwise
    skip the code that undoes its changes.
    """
    try:
        yield
    finally:
        try:
            with record.recording():
                manager.__exit__(None, None, None)
        except PrecisionBenchError:
            raise
        except FOREIGN_ERRORS as exc:
            raise PreparationError(f"its cleanup failed ({one_line(exc)})") from exc


def checked_call(prepared: object) -> Callable[[], object]:
    """The callable of what `prepare` yielded."""
    call = prepared.call if isinstance(prepared, Prepared) else prepared
    if not callable(call):
        raise PreparationError(
            f"its prepare yielded a {type(prepared).__name__}",
            "let it yield Prepared(call=...) or a callable without arguments",
        )
    return call


@contextlib.contextmanager
def leaks_refused() -> Iterator[None]:
    """Raise a StateLeakError where torch's functions are not afterwards what they were."""
    functions = Functions.now()
    yield
    if leaked := functions.changes():
        raise StateLeakError(
            f"it left torch patched for the whole process ({some(leaked)}), so its row and later "
            "ones could not be trusted; all was put back",
            "let its prepare undo this after the yield",
        )


@contextlib.contextmanager
def executing() -> Iterator[None]:
    """Turn what a call raises into an ExecutionError, or a DeviceError if the device is lost."""
    try:
        yield
    except PrecisionBenchError:
        raise
    except FOREIGN_ERRORS as exc:
        _raise_if_out_of_memory(exc)
        if _device_is_lost():
            raise DeviceError(
                f"the device stopped answering ({one_line(exc)})",
                "start a new process; leave this backend out if it happens again",
            ) from exc
        raise ExecutionError(
            f"the model failed in forward ({one_line(exc)})", _execution_remedy(exc)
        ) from exc


def _raise_if_out_of_memory(exc: BaseException) -> None:
    """PyTorch's own error on a GPU; elsewhere, and from CUDA's libraries, one that names it."""
    named = any(words in str(exc) for words in _ABOUT_MEMORY)
    if isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)) or named:
        raise OutOfMemoryError(f"it does not fit in memory ({one_line(exc)})") from exc


# What errors say that are about memory and of another class: torch's on a CPU, CUDA's when a
# process starts, and its libraries'.
_ABOUT_MEMORY = (
    "CPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# How torch's messages about an operand of the wrong dtype begin or end.
_ABOUT_DTYPES = (
    "not implemented for",
    "dtype",
    "same type",
    "scalar type",
    "should be the same",
)
_ABOUT_GRADIENTS = ("does not require grad", "Inference tensors")


def _execution_remedy(exc: BaseException) -> str:
    text = str(exc)
    if any(words in text for words in _ABOUT_DTYPES):
        return "an operation of the model does not take this dtype; try another precision"
    if any(words in text for words in _ABOUT_GRADIENTS):
        return "its forward needs gradients or changes tensors: add grad_mode=no_grad to the spec"
    return "run it once without precisionbench on the same inputs"


def _device_is_lost() -> bool:
    """After a fault such as an illegal address every CUDA call of the process fails."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def _json_details(prepared: object) -> dict[str, Json]:
    if not isinstance(prepared, Prepared):
        return {}
    try:
        return as_json(dict(prepared.details))  # type: ignore[no-any-return]
    except Exception as exc:  # no mapping, or one that holds itself
        raise PreparationError(
            f"its details cannot be kept ({one_line(exc)})",
            "let it give a dict of plain values",
        ) from exc


def _readable(output: object) -> object:
    if isinstance(output, (Iterator, types.AsyncGeneratorType, types.CoroutineType)):
        raise ExecutionError(
            f"the model gave a {type(output).__name__}, which computes nothing until it is read",
            "wrap the model so that its forward returns tensors",
        )
    return output
