"""Private copies of the model and inputs for one backend, on the device.

A worker makes them while other workers do, too; only what follows must run alone.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture
from precisionbench.backends import Backend, Inputs
from precisionbench.backends.batch_norm_folding import folded
from precisionbench.measure.worker.guards import check_available, executing
from precisionbench.model.workload import Workload
from precisionbench.torchtools.global_state import (
    autocast_off,
    cudnn_benchmark,
    fp32_precision,
    threads,
)
from precisionbench.torchtools.tensors import arrange
from precisionbench.torchtools.timer import Timer

_TURN_LIMIT_S, _TURN_CHECK_S = 10.0, 0.002
# In the folder of a run: the workers of all its models wait for each other.
TURN_FILE = "turn"
Turn = Callable[[], contextlib.AbstractContextManager[object]]


@attrs.frozen
class Loaded:
    """What a backend is prepared from.

    Attributes:
        workload: at the batch size that the backend's options ask for.
        parts: private copies of the model and inputs, as its common options want them.
        output: what was printed and warned so far.
        bytes: device memory that torch has taken for them.
    """

    workload: Workload
    parts: tuple[nn.Module, Inputs]
    output: OutputCapture
    bytes: int


def loaded(
    backend: Backend,
    workload: Workload,
    timer: Timer,
    on_step: Callable[[str], object] = lambda _: None,
    turn: Turn = contextlib.nullcontext,
) -> Loaded:
    """Make copies of the model and inputs for a backend.

    Args:
        backend: its common options decide.
        workload: the model and inputs.
        timer: of the workload's device.
        on_step: called with a description of each step before it begins.
        turn: entered while the device is used.

    Raises:
        BackendUnavailableError: this machine cannot run the backend.
        ExecutionError: the model cannot be built or moved.
        OutOfMemoryError: it does not fit.
        WorkloadError: no dimension of the inputs is known to be the batch.
    """
    output = OutputCapture()
    with common_settings(backend, workload, timer), output.capturing():
        check_available(backend)
        on_step("loading the model")
        with executing():
            before = _reserved_bytes(workload.device)
            workload = at_batch(backend, workload)
            built = workload.built()
            with turn():
                model, inputs = workload.moved(built), workload.make_inputs()
                model = folded(model) if backend.fold_batch_norm else model
                parts = in_memory_format(backend, model, inputs, output)
                timer.clock.wait()
            taken = _reserved_bytes(workload.device) - before
    return Loaded(workload, parts, output, taken)


@contextlib.contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Let only one process at a time into the context, among those that give the same file.

    Copies to a GPU that several processes share wait for each process's time slice: side by side,
    nine models of 320 small tensors took 3 s each, and one after another 0.1 s. On a CPU the
    threads of a call wait for each other, and get no core while those of other calls wait: two
    LSTMs on two cores took 6 s to warm up, and one after the other 0.2 s. A process that has waited
    for 10 s goes on beside the others.

    Args:
        file: made where there is none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    end_s = time.monotonic() + _TURN_LIMIT_S
    with file.open("ab") as opened:  # which releases the lock
        while time.monotonic() < end_s:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_TURN_CHECK_S)
        yield


def _reserved_bytes(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


@contextlib.contextmanager
def common_settings(backend: Backend, workload: Workload, timer: Timer) -> Iterator[None]:
    """The settings around `prepare` and every call of any backend, unless its plugin sets more.

    Args:
        backend: its common options decide.
        workload: on the device.
        timer: of the device.
    """
    with (
        autocast_off(workload.device.type),
        timer.clock.active(),
        fp32_precision("ieee"),
        cudnn_benchmark(backend.cudnn_benchmark),
        threads(backend.torch_threads or torch.get_num_threads()),
    ):
        yield


def at_batch(backend: Backend, workload: Workload) -> Workload:
    """The workload with the batch size that the backend's options ask for.

    Args:
        backend: its option `batch_size` decides; None keeps the workload's.
        workload: with the user's batch size.

    Raises:
        WorkloadError: no dimension of the inputs is known to be the batch.
    """
    wanted = backend.batch_size
    if wanted is None or wanted == workload.info.batch_size:
        return workload
    return workload.with_batch(wanted)


def in_memory_format(
    backend: Backend, model: nn.Module, inputs: Inputs, output: OutputCapture
) -> tuple[nn.Module, Inputs]:
    """The model and inputs in the backend's memory format, whatever they were in before.

    Args:
        backend: its option `memory_format` decides.
        model: changed in place.
        inputs: not changed.
        output: takes a warning where the format makes no difference.
    """
    arrangeable = [tensor for _, tensor in inputs.tensors() if tensor.dim() in (4, 5)]
    if backend.memory_format == "channels_last" and not arrangeable:
        output.warn("channels_last has no effect: no input has 4 or 5 dimensions")
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        data = tensor.data
        if (arranged := arrange(data, backend.memory_format)) is not data:
            tensor.data = arranged
    return model, inputs.in_memory_format(backend.memory_format)
