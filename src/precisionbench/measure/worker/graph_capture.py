"""The option `cuda_graph`: a prepared call is captured, and its replay is timed in its place."""

from __future__ import annotations

import warnings

import torch

from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line
from precisionbench.probes.event_timing_checks import synchronizations
from precisionbench.probes.graphs import Replay, capture
from precisionbench.torchtools.agreement import compare_tensors, cpu_copies, differs
from precisionbench.torchtools.timer import Call, Clock, CudaEventClock

# In the first calls libraries choose algorithms and allocate workspaces, which breaks a capture.
_WARMUP_CALLS = 3
# Two calls in float16 differ by less.
_SAME_ERROR = 1e-2
_LEAVE_OUT = "leave cuda_graph out of this row's spec"


def captured(clock: Clock, call: Call) -> Replay:
    """The replay of a prepared call, to be timed in its place.

    Args:
        clock: of the device.
        call: one forward pass.

    Raises:
        PreparationError: it cannot be captured, or its replay gives another output.
    """
    if not isinstance(clock, CudaEventClock):
        raise PreparationError(
            "cuda_graph=true requires a CUDA GPU, and this row does not run on one",
            "leave cuda_graph out, or choose the device 'cuda'",
        )
    for _ in range(_WARMUP_CALLS):
        before = cpu_copies(call())
    _refuse_synchronizations(call)
    replay = _captured(clock, call)
    if differs(compare_tensors(cpu_copies(replay()), before), _SAME_ERROR):
        raise PreparationError(
            "its CUDA-graph replay gives a different output than the call: the call uses another "
            "stream, data from the host or random numbers, or keeps state",
            _LEAVE_OUT,
        )
    return replay


def _refuse_synchronizations(call: Call) -> None:
    """Checked beforehand, because a capture that fails can spoil the process."""
    if places := synchronizations(call):
        raise PreparationError(
            f"its call synchronizes with the GPU ({places[0]}), so it cannot be captured as a CUDA "
            "graph",
            "remove .item(), .cpu(), .to(device) and branches on values from its forward, or "
            "leave cuda_graph out",
        )


def _captured(clock: CudaEventClock, call: Call) -> Replay:
    with warnings.catch_warnings():
        # An empty graph means that all work is on another stream: a replay would do nothing.
        warnings.filterwarnings("error", message="The CUDA Graph is empty")
        try:
            return capture(clock, call)
        except torch.cuda.OutOfMemoryError:
            raise
        except FOREIGN_ERRORS as exc:
            raise PreparationError(
                f"its call cannot be captured as a CUDA graph ({one_line(exc)})", _LEAVE_OUT
            ) from exc
