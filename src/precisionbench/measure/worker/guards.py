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
    ExecutionError,
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    one_line,
    raise_plain,
    some,
    text_of,
)
from precisionbench.measure.worker.failing_module import (
    FailingModule,
    failing_module,
    failing_module_in_eager,
)
from precisionbench.results.comparison_data import WRONG_DTYPE
from precisionbench.torchtools.global_state import Functions

# Parts of messages about memory in errors of other classes: torch's on a CPU, CUDA's when a process
# starts, and those of CUDA's libraries.
_ABOUT_MEMORY = (
    "CPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# Parts of torch's messages about an operand of the wrong dtype.
_ABOUT_DTYPES = (
    "not implemented for",
    "dtype",
    "same type",
    "scalar type",
    "should be the same",
)
# Parts of torch's messages about operands on different devices.
_ABOUT_DEVICES = ("on the same device", "not on the expected device", "is on cpu", "on different")
_ABOUT_GRADIENTS = ("does not require grad", "Inference tensors")


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
            f"its prepare yielded a {type(prepared).__name__}",
            "yield Prepared(call=...) or a callable without arguments",
        )
    return call


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
        if device_is_lost():
            raise DeviceError(
                f"the device stopped responding ({one_line(exc)})",
                "start a new process; leave this backend out if it happens again",
            ) from exc
        if call is not None and where is None and _is_about(exc, _ABOUT_DTYPES + _ABOUT_DEVICES):
            where = failing_module_in_eager(call)
        raise ExecutionError(
            f"the model failed in forward{_place(exc, where)} ({one_line(exc)})",
            _execution_remedy(exc, where),
        ) from exc


def _is_about(exc: BaseException, words: tuple[str, ...]) -> bool:
    text = text_of(exc)
    return any(one in text for one in words)


def _place(exc: BaseException, where: FailingModule | None) -> str:
    """The module in which a call failed, and what does not fit there, as a part of a sentence."""
    if where is None:
        return ""
    about_devices = _is_about(exc, _ABOUT_DEVICES)
    about_dtypes = _is_about(exc, _ABOUT_DTYPES) and not about_devices
    differing = where.devices if about_devices else where.dtypes if about_dtypes else ""
    if not (where.path or differing):
        return ""
    return f" of {where}{f', {differing}' if differing else ''}"


def raise_if_out_of_memory(exc: BaseException, where: FailingModule | None = None) -> None:
    """Raise an OutOfMemoryError where an error is about memory, whatever its class.

    Args:
        exc: what was caught.
        where: the module in which it happened; None where that is not known.
    """
    named = _is_about(exc, _ABOUT_MEMORY)
    if isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)) or named:
        place = f", in forward of {where}" if where and where.path else ""
        raise OutOfMemoryError(f"it does not fit in memory{place} ({one_line(exc)})") from exc


def _execution_remedy(exc: BaseException, where: FailingModule | None) -> str:
    if _is_about(exc, _ABOUT_DEVICES):
        return (
            "tensors that forward makes or that are plain attributes stay on their device: "
            "register them as buffers, or create them on the device of the input"
        )
    if _is_about(exc, _ABOUT_DTYPES):
        return _dtype_remedy(where)
    if _is_about(exc, _ABOUT_GRADIENTS):
        return "its forward needs gradients or changes tensors: add grad_mode=no_grad to the spec"
    return "run the model once on the same inputs without precisionbench"


def _dtype_remedy(where: FailingModule | None) -> str:
    """What to do about dtypes that do not fit, in a row of the precision that is set now."""
    if where is None:
        return f"{WRONG_DTYPE}; try another precision"
    if "attribute" in where.dtypes:
        return f"{WRONG_DTYPE}: register its attributes as buffers, or cast them in forward"
    cast = f"cast the input of {where} in the model"
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        return f"{WRONG_DTYPE}: {cast}, or disable autocast around it"
    if not where.half:
        return f"{WRONG_DTYPE}: {cast}"
    cast = cast if where.dtypes else f"compute it in float32 in forward of {where}"
    keep = f"keep {where.path} in float32 (half:fp32_layers={where.path}), " if where.path else ""
    return f"{WRONG_DTYPE}: {keep}{cast}, or use autocast"


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
