"""A backend that is prepared in this process, to be called with any inputs of the same shapes."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.errors import (
    ExecutionError,
    PrecisionBenchWarning,
    PreparationError,
    WorkloadError,
)
from precisionbench.measure.worker.first_calls import readable
from precisionbench.measure.worker.graph_capture import captured
from precisionbench.measure.worker.guards import (
    checked_call,
    checked_inputs,
    executing,
    preparing,
)
from precisionbench.measure.worker.loading import Loaded, common_settings, loaded
from precisionbench.model.sources import ModelFactory
from precisionbench.model.workload import Workload, resolve
from precisionbench.system.memory import free_memory
from precisionbench.torchtools.global_state import (
    Settings,
    gradients_off,
    recompile_limit_lifted,
    rng_restored,
    seed_everything,
)
from precisionbench.torchtools.refill import refill
from precisionbench.torchtools.same_arguments import tensors_in_order
from precisionbench.torchtools.tensors import map_with_objects
from precisionbench.torchtools.timer import Call, Clock, CudaEventClock, Timer, clock_for


class PreparedCall:
    """A model that a backend has prepared, with the model's signature.

    Args:
        call: one forward pass.
        read: the tensors that it reads.
        prepared_with: the arguments whose structure and other values all calls have.
        conditions: of each call.

    Attributes:
        conditions: as given.
    """

    def __init__(
        self, call: Call, read: Inputs, prepared_with: Inputs, conditions: Conditions
    ) -> None:
        self._call: Call | None = call  # None once it has ended
        self._read, self._prepared_with = read, prepared_with
        self.conditions = conditions
        self._lock = threading.Lock()  # all calls read the same tensors

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model's output for other tensors.

        On a GPU it returns before the output is computed, as torch's operations do.

        Args:
            *args: the model's, as those that it was prepared with: tensors of the same shapes on
                any device, and otherwise the same values.
            **kwargs: as for `args`.

        Returns:
            A copy of the output, which no later call changes.

        Raises:
            WorkloadError: the arguments differ in more than the values of tensors.
            ExecutionError: the call failed.
            PreparationError: the context of `prepared_call` was left.
        """
        tensors = tensors_in_order(Inputs(args, kwargs), self._prepared_with)
        with self._lock:
            call = self._checked()
            with self.conditions.applied() as caller, executing():
                refill(self._read, tensors)
                with gradients_off(self.conditions.grad_mode):
                    output = call()
                return _copies(output, caller)

    def _checked(self) -> Call:
        if self._call is None:
            raise PreparationError(
                "it was called after the context in which it was prepared",
                "call it within the with block",
            )
        return self._call

    def end(self, undo: contextlib.ExitStack) -> None:
        """Undo what was prepared, and free its memory; later calls raise.

        Args:
            undo: what undoes it.
        """
        with self._lock:
            self._call, self._read = None, Inputs()
            with self.conditions.applied():
                undo.close()


@attrs.frozen
class Conditions:
    """Under what a backend's calls run when they are measured.

    Attributes:
        settings: torch's.
        grad_mode: the backend's option.
        clock: of the device; on a GPU it has a stream of its own.
    """

    settings: Settings
    grad_mode: str
    clock: Clock

    @contextlib.contextmanager
    def applied(self) -> Iterator[torch.cuda.Stream | None]:
        """Apply them within the context, but for the grad mode.

        Yields:
            The stream on which the caller reads the output; None where there are no streams.
        """
        with self.settings.applied():
            if not isinstance(self.clock, CudaEventClock):
                yield None
                return
            ours, caller = self.clock.stream, torch.cuda.current_stream(self.clock.device)
            ours.wait_stream(caller)
            with torch.cuda.device(self.clock.device), torch.cuda.stream(ours):
                yield caller
            caller.wait_stream(ours)


def _copies(output: Any, reader: torch.cuda.Stream | None) -> Any:
    """The output with copies of its tensors, whose memory is kept until a stream has read them."""

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.detach().clone()
        if reader is not None and copy.is_cuda:
            copy.record_stream(reader)
        return copy

    try:
        return map_with_objects(copied, output)
    except WorkloadError as exc:  # it names inputs
        raise ExecutionError(
            f"its output ({type(output).__name__}) holds an object that cannot be copied",
            "wrap the model so that its forward returns tensors",
        ) from exc


@contextlib.contextmanager
def prepared_call(
    backend: Backend,
    model: nn.Module | ModelFactory | str,
    inputs: Any = None,
    *,
    device: str | torch.device | None = None,
    seed: int = 0,
    hold_settings: bool = False,
) -> Iterator[PreparedCall]:
    """Prepare a backend in this process, and undo it on leaving.

    Each call runs as it is measured: with the backend's settings of torch (precision of float32,
    cuDNN's benchmark mode, autocast, grad mode) and on a GPU in a stream of its own, for which the
    caller's stream waits. Between the calls the caller's own settings hold. What holds until the
    context is left: functions of torch that the backend replaces (`apex-amp` under O1), and a
    higher recompile limit of `torch.compile`.

    Args:
        backend: what to prepare.
        model: as for `resolve`; a copy is used.
        inputs: arguments of one forward pass, as for `resolve`; copies are used. All calls have
            their structure and shapes.
        device: as for `resolve`.
        seed: as for `resolve`.
        hold_settings: keep the backend's settings of torch until the context is left, also between
            the calls: each call takes less of the host's time.

    Yields:
        The prepared model.

    Raises:
        BackendUnavailableError: this machine cannot run it.
        WorkloadError: the model or the inputs cannot be used.
        PreparationError: `prepare` failed, or its calls cannot be given other inputs.
        ExecutionError: the first call failed.
        OutOfMemoryError: it does not fit.
    """
    with prepared_workload(
        backend, resolve(model, inputs, device=device, seed=seed), hold_settings=hold_settings
    ) as call:
        yield call


@contextlib.contextmanager
def prepared_workload(
    backend: Backend, workload: Workload, *, hold_settings: bool = False
) -> Iterator[PreparedCall]:
    """As `prepared_call`, of a model and inputs that are resolved already.

    Args:
        backend: what to prepare.
        workload: the model and inputs; copies are used.
        hold_settings: as for `prepared_call`.

    Yields:
        The prepared model.

    Raises:
        PrecisionBenchError: as `prepared_call`.
    """
    try:
        call, undo = _prepared(backend, workload, Timer(clock_for(workload.device)))
        held = call.conditions.settings.applied() if hold_settings else contextlib.nullcontext()
        try:
            with held:
                yield call
        finally:
            call.end(undo)
    finally:
        torch.clear_autocast_cache()  # of weights of ours; a caller's own are cast again
        free_memory()


def _prepared(
    backend: Backend, workload: Workload, timer: Timer
) -> tuple[PreparedCall, contextlib.ExitStack]:
    """A backend's call, once it has run, and what undoes it."""
    device_types = ("cpu", workload.device.type)
    caller = Settings.now(*device_types)
    with (
        common_settings(backend, workload, timer),
        rng_restored(),
        contextlib.ExitStack() as undo,
    ):
        ready = loaded(backend, workload, timer)
        with ready.output.capturing():
            call, read = _called(backend, ready, timer, undo)
        for message in ready.output.warnings():
            warnings.warn(message, PrecisionBenchWarning, stacklevel=5)
        conditions = Conditions(Settings.now(*device_types), backend.grad_mode, timer.clock)
        undo = undo.pop_all()
    caller.set()  # the plugin's contexts are still open
    return PreparedCall(call, read, ready.workload.inputs, conditions), undo


def _called(
    backend: Backend, ready: Loaded, timer: Timer, undo: contextlib.ExitStack
) -> tuple[Call, Inputs]:
    """A backend's call, once it has run, and the tensors that it reads."""
    seed_everything(ready.workload.seed)
    undo.enter_context(recompile_limit_lifted())
    prepared = undo.enter_context(preparing(backend, *ready.parts, ready.output))
    given = prepared.inputs if isinstance(prepared, Prepared) else None
    call, read = checked_call(prepared), checked_inputs(given, ready.workload.inputs)
    with gradients_off(backend.grad_mode), executing(call):
        call = captured(timer.clock, call) if backend.cuda_graph else call
        readable(call())
        timer.clock.wait()
    return call, read
