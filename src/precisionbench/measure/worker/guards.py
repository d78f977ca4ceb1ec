"""Guards around the code of plugins and models: they turn its errors into those of `errors`."""

from __future__ import annotations

import contextlib
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.errors import (
    ENDS_OF_RUN,
    FOREIGN_ERRORS,
    DeviceError,
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    kind_of,
    one_line,
    raise_plain,
    some,
    text_of,
)
from precisionbench.torchtools.failed_call import failure_of, misfit_in_eager
from precisionbench.torchtools.failing_module import FailingModule, failing_module
from precisionbench.torchtools.global_state import Functions

# Parts of messages about memory in errors of other classes: torch's on a CPU, CUDA's when a process
# starts, and those of CUDA's libraries.
_ABOUT_MEMORY = (
    "CPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def check_available(backend: Backend) -> None:
    """Raise unless the backend can run on this machine.

    Args:
        backend: what to check.

    Raises:
        BackendUnavailableError: the plugin says what is missing.
        PreparationError: its check failed with an error of its own.
    """
    try:
        backend.check_available()
    except PrecisionBenchError as exc:
        raise_plain(exc)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:  # in the user's process this may be, with launcher="inline"
        raise PreparationError(f"its check_available failed ({one_line(exc)})") from exc


@contextlib.contextmanager
def preparing(
    backend: Backend, model: nn.Module, inputs: Inputs, output: OutputCapture
) -> Iterator[Any]:
    """Enter the plugin's `prepare`; yields what it yields.

    Args:
        backend: what to prepare.
        model: a private copy.
        inputs: a private copy.
        output: captures what the plugin's cleanup prints.

    Raises:
        PreparationError: `prepare` or its cleanup failed.
        OutOfMemoryError: there is not enough memory.
    """
    try:
        manager = backend.prepare(model, inputs)
        if isinstance(manager, types.GeneratorType):
            raise PreparationError(
                "its prepare is a plain generator", "decorate it with @contextlib.contextmanager"
            )
        prepared = manager.__enter__()
    except PrecisionBenchError as exc:
        raise_plain(exc)
    except FOREIGN_ERRORS as exc:
        raise_if_out_of_memory(exc)
        raise PreparationError(f"it could not prepare the model ({one_line(exc)})") from exc
    with exited(manager, output):
        yield prepared


@contextlib.contextmanager
def exited(
    manager: contextlib.AbstractContextManager[Any], output: OutputCapture
) -> Iterator[None]:
    """Exit a context manager that was entered, whatever happens, as `with` would.

    It gets no exception: a generator without try/finally would otherwise skip the code that undoes
    its changes.

    Args:
        manager: the plugin's, entered before.
        output: captures what its exit prints.

    Raises:
        PreparationError: its exit failed.
    """
    try:
        yield
    finally:
        try:
            with output.capturing():
                manager.__exit__(None, None, None)
        except PrecisionBenchError as exc:
            raise_plain(exc)
        except FOREIGN_ERRORS as exc:
            raise PreparationError(f"its cleanup failed ({one_line(exc)})") from exc


def checked_call(prepared: object) -> Callable[[], object]:
    """The callable of what `prepare` yielded.

    Args:
        prepared: a `Prepared` or a callable.

    Raises:
        PreparationError: it is neither.
    """
    call = prepared.call if isinstance(prepared, Prepared) else prepared
    if not callable(call):
        raise PreparationError(
            f"its prepare yielded {kind_of(prepared)}",
            "yield Prepared(call=...) or a callable without arguments",
        )
    return call


def checked_inputs(read: object, given: Inputs) -> Inputs:
    """The tensors that a prepared call reads, where the plugin gave all of them.

    Args:
        read: `Prepared.inputs`.
        given: what the plugin was given, or tensors of the same shapes.

    Raises:
        PreparationError: it gave none, or others.
    """
    if read is None:
        raise PreparationError(
            "its calls cannot be given other inputs, because its prepare does not say which "
            "tensors they read",
            "yield a Prepared whose inputs are the tensors that the call reads",
        )
    want = [tensor.shape for _, tensor in given.tensors()]
    if not isinstance(read, Inputs) or [tensor.shape for _, tensor in read.tensors()] != want:
        raise PreparationError(
            "the inputs of its Prepared are not those that it was given",
            "yield a Prepared whose inputs have one tensor for each that it was given, in the same "
            "order and of the same shapes",
        )
    return read


@contextlib.contextmanager
def leaks_refused() -> Iterator[None]:
    """Raise a StateLeakError on leaving where torch's functions have changed since entering."""
    functions = Functions.now()
    yield
    if leaked := functions.changes():
        raise StateLeakError(
            f"it left torch patched for the whole process ({some(leaked)}), so its row and later "
            "ones would be wrong; the original functions were restored",
            "undo this in its prepare, after the yield",
        )


@contextlib.contextmanager
def executing(call: Callable[[], object] | None = None) -> Iterator[None]:
    """Turn what a call raises into an ExecutionError, or a DeviceError if the device is lost.

    Args:
        call: that runs within; where it is compiled and fails, it is called once more without
            compiling, to find the module in which it fails.
    """
    try:
        yield
    except PrecisionBenchError as exc:
        raise_plain(exc)
    except FOREIGN_ERRORS as exc:
        where = failing_module(exc)
        raise_if_out_of_memory(exc, where)
        raise_if_device_lost(exc)
        if where is None and call is not None:
            where = misfit_in_eager(exc, call)
        raise failure_of(exc, where) from exc


def raise_if_out_of_memory(exc: BaseException, where: FailingModule | None = None) -> None:
    """Raise an OutOfMemoryError where an error is about memory, whatever its class.

    Args:
        exc: what was caught.
        where: the module in which it happened; None where that is not known.
    """
    named = any(words in text_of(exc) for words in _ABOUT_MEMORY)
    if isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)) or named:
        place = f", in forward of {where}" if where and where.path else ""
        raise OutOfMemoryError(f"it does not fit in memory{place} ({one_line(exc)})") from exc


def raise_if_device_lost(exc: BaseException) -> None:
    """Raise a DeviceError where all CUDA calls of this process fail from now on.

    Args:
        exc: what was caught.
    """
    if device_is_lost():
        raise DeviceError(
            f"the device stopped responding ({one_line(exc)})",
            "start a new process; leave this backend out if it happens again",
        ) from exc


def device_is_lost() -> bool:
    """Whether all CUDA calls of this process fail, as they do after an illegal address."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def drop_frames(exc: BaseException | None) -> None:
    """Release the tensors that an error's tracebacks hold.

    Args:
        exc: the error; its causes are included.
    """
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:  # causes can go in a circle
        seen.add(id(exc))
        traceback.clear_frames(exc.__traceback__)
        exc = exc.__cause__
