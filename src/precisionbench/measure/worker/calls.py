"""Calls of the user's functions, in this process or in a worker, timed block by block as rows are.

They run under the caller's settings of torch: nothing is cast, patched, seeded or switched off.
"""

from __future__ import annotations

import contextlib
import time
import types
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any, ClassVar

import attrs
import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture, silence
from precisionbench.backends import Backend, Inputs
from precisionbench.errors import (
    FOREIGN_ERRORS,
    ExecutionError,
    PrecisionBenchError,
    one_line,
    raise_plain,
)
from precisionbench.measure.worker.first_calls import (
    WarmUp,
    event_timing_labels,
    suitable_timer,
    warm_up,
)
from precisionbench.measure.worker.guards import raise_if_device_lost, raise_if_out_of_memory
from precisionbench.measure.worker.protocol import FIRST_CALL, Closing, KnownCalls, Opening
from precisionbench.model.workload import Workload
from precisionbench.probes.event_timing_checks import STREAM_ESCAPE, SYNC_INSIDE
from precisionbench.results.comparison_data import CALL
from precisionbench.torchtools.agreement import cpu_copies
from precisionbench.torchtools.global_state import compilations, read_flags
from precisionbench.torchtools.saving import save
from precisionbench.torchtools.timer import Call, CudaEventClock, HostClock, Timer, clock_for

# A call of this length is timed by the host's clock on any device, and nothing settles before it.
_LONG_CALL_S = 0.5
# Shorter calls share a sample of this length, so that a block has 1,000 samples at most.
_MIN_SAMPLE_S = 50e-6
_ENOUGH = 1.2  # a sample whose planned calls grow by less than this factor is long enough
_LAZY = (
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.CoroutineType,
    map,
    filter,
    zip,
)
_LABEL_TEXT = {
    SYNC_INSIDE: "the call waits for the GPU itself, so its time is the host's, around "
    "synchronised calls",
    STREAM_ESCAPE: "the call works on another CUDA stream, so its time is the host's, around "
    "synchronised calls",
}


@attrs.frozen
class CallBackend(Backend):
    """A function as a backend that ignores the model; `CallLauncher` opens it.

    Attributes:
        name: of rows of functions.
        load: gives the function to call, without arguments.
        title: its name in errors.
        keeps_output: keep what the first call returns, to be compared with that of other rows.
    """

    name: ClassVar[str] = CALL

    load: Callable[[], Call] = attrs.field(kw_only=True, eq=False, metadata={"recorded": False})
    title: str = attrs.field(default="", kw_only=True, metadata={"recorded": False})
    keeps_output: bool = attrs.field(default=False, kw_only=True, metadata={"recorded": False})

    @contextlib.contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Call]:  # noqa: ARG002
        """The function itself."""
        yield self.load()


@contextlib.contextmanager
def calling(title: str) -> Iterator[None]:
    """Turn what a function raises into an ExecutionError that names it.

    Args:
        title: the function's name.

    Raises:
        ExecutionError: it failed; its own error is the cause.
        OutOfMemoryError: there is not enough memory for it.
        DeviceError: the device is lost.
    """
    try:
        yield
    except PrecisionBenchError as exc:
        raise_plain(exc)
    except FOREIGN_ERRORS as exc:
        raise_if_out_of_memory(exc)
        raise_if_device_lost(exc)
        raise ExecutionError(
            f"the call of {title} failed ({one_line(exc)})",
            "call it once with the same arguments without precisionbench",
        ) from exc


@attrs.frozen
class FirstCall:
    """What the first call of a function has shown.

    Attributes:
        seconds: how long it took, with all the work that it gave to a GPU.
        output: the tensors of what it returned, by path, on the CPU; empty where none are kept.
    """

    seconds: float
    output: Mapping[str, torch.Tensor]


def first_call(call: Call, backend: CallBackend, output: OutputCapture) -> FirstCall:
    """Call a function for the first time, on the caller's stream.

    Args:
        call: the function.
        backend: names it.
        output: takes what it prints, and a warning where it computes later.

    Raises:
        PrecisionBenchError: as `calling`.
    """
    with calling(backend.title), output.capturing():
        begun_s = time.perf_counter()
        returned = call()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun_s
        kept = cpu_copies(returned) if backend.keeps_output else {}
    if isinstance(returned, _LAZY):
        kind = type(returned).__name__
        output.warn(
            f"the call returns a {kind}, which computes only when it is read, so most of its work "
            "is not timed; time a function that reads it"
        )
    return FirstCall(seconds, kept)


@attrs.define
class CallSession:
    """A function that is ready to be timed block by block.

    Attributes:
        opening: what is known of its calls since they were warmed up.
        timer: times them.
        call: the function.
        title: its name in errors.
        output: the tensors of what its first call returned.
        output_capture: what it printed, and warnings of its row.
        compiled: graphs that torch.compile has compiled in its blocks.
    """

    opening: Opening
    timer: Timer
    call: Call
    title: str
    output: Mapping[str, torch.Tensor]
    output_capture: OutputCapture
    compiled: int = 0

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`. No call settles before long ones.

        Raises:
            ExecutionError: a call failed.
            MeasurementError: the clock did not move forward.
        """
        before = compilations()
        settle_calls = 0 if self.opening.call_s >= _LONG_CALL_S else settle_calls
        with calling(self.title), silence():
            times_s = self.timer.block(self.call, samples, calls_per_sample, settle_calls)
        self.compiled += compilations() - before
        return times_s

    def check_steady(self) -> None:
        """A function need not return the same each time."""

    def write_output(self, path: str) -> None:
        """Write the tensors of what the first call returned to a file.

        Args:
            path: of the file.

        Raises:
            OutputError: they cannot be written.
        """
        save({name: one.as_subclass(torch.Tensor) for name, one in self.output.items()}, path)

    def closing(self) -> Closing:
        """The warnings and the log."""
        warnings = list(self.output_capture.warnings())
        if self.compiled:
            warnings.append(
                f"torch.compile compiled {self.compiled} graph(s) within the measured calls, so "
                "some of them include compilation: give inputs of the same shapes to each call"
            )
        return Closing(tuple(warnings), self.output_capture.log())


def opened(
    call: Call,
    backend: CallBackend,
    first: FirstCall,
    timer: Timer,
    output: OutputCapture,
    known: KnownCalls | None = None,
) -> CallSession:
    """Warm up a function that was called once, and choose the clock for its calls.

    Args:
        call: the function.
        backend: names it.
        first: its first call.
        timer: of the device; its clock is active.
        output: takes what it prints, and warnings.
        known: what an earlier replica has shown.

    Raises:
        PrecisionBenchError: as `calling`.
    """
    device = getattr(timer.clock, "device", torch.device("cpu"))
    labels: tuple[str, ...] = ()
    with calling(backend.title), output.capturing():
        found = _warmed_up(call, timer, first.seconds)
        if found.call_s >= _LONG_CALL_S:
            timer = Timer(_host_clock(timer))
        else:
            labels = tuple(known.labels) if known else event_timing_labels(timer, call)
            timer = suitable_timer(timer, labels)
    for label in labels:
        output.warn(_LABEL_TEXT[label])
    opening = Opening(
        clock=timer.clock.name,
        resolution_s=timer.clock.resolution_s,
        min_sample_s=max(timer.clock.min_sample_s, _MIN_SAMPLE_S),
        build_s=0.0,
        first_call_s=first.seconds,
        **attrs.asdict(found),
        flags=read_flags(),
        details={"device": str(device)},
        labels=labels,
    )
    return CallSession(opening, timer, call, backend.title, first.output, output)


def _host_clock(timer: Timer) -> Any:
    clock = timer.clock
    return HostClock(clock.device) if isinstance(clock, CudaEventClock) else clock


def _warmed_up(call: Call, timer: Timer, first_s: float) -> WarmUp:
    """Call until nothing compiles or allocates; a long call once more only."""
    if first_s >= _LONG_CALL_S:
        again_s = timer.once(call)[1]  # the first one may have loaded or compiled something
        if again_s >= _LONG_CALL_S:
            return WarmUp(warmup_calls=1, call_s=again_s, cores_busy=0.0)
    found = warm_up(call, timer)
    return attrs.evolve(found, call_s=_call_s(call, timer, found.call_s))


def _call_s(call: Call, timer: Timer, seconds: float) -> float:
    """The length of a call, in samples long enough for the clock; of a single short one, its own
    reading is the larger part."""
    calls = timer.calls_per_sample(seconds)
    while calls > 1:
        seconds = median(timer.block(call, 3, calls))
        needed = timer.calls_per_sample(seconds)
        if needed <= _ENOUGH * calls:
            break
        calls = needed
    return seconds


@attrs.frozen
class CallLauncher:
    """Opens functions in a worker process.

    Attributes:
        timer: times calls on the device.
    """

    timer: Timer

    @classmethod
    def on_device_of(cls, workload: Workload) -> CallLauncher:
        """A launcher with the clock of the workload's device."""
        return cls(Timer(clock_for(workload.device)))

    def load(self, backend: CallBackend) -> None:
        """A function has no model to copy.

        Args:
            backend: the function.
        """

    @contextlib.contextmanager
    def open(
        self,
        backend: CallBackend,
        on_step: Callable[[str], object] = lambda _: None,
        known: KnownCalls | None = None,
        load: object = None,  # noqa: ARG002 - of rows that have a model
    ) -> Iterator[CallSession]:
        """Load a function, call it, and warm it up.

        Args:
            backend: the function.
            on_step: called with a description of each step before it begins.
            known: what an earlier replica has shown of its calls.
            load: not used.

        Raises:
            PrecisionBenchError: as `calling`.
        """
        output = OutputCapture()
        with calling(backend.title), output.capturing():
            call = backend.load()
        on_step(FIRST_CALL)
        first = first_call(call, backend, output)
        on_step("warm-up calls")
        with self.timer.clock.active():
            yield opened(call, backend, first, self.timer, output, known)
