"""Memory of the host and the device: how much is free, how many workers fit, giving it back."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path

import torch

from precisionbench.system import cgroups

# Host memory of a worker without the model. On a GPU that is torch and a CUDA context. Elsewhere a
# forked worker shares torch with the others and has about 50 MB of its own; a compiler, or an
# interpreter that was not forked, takes more.
_CUDA_WORKER_BYTES = 2 << 30
_FORKED_WORKER_BYTES = 64 << 20
_WORKER_BYTES = 600 << 20
_USABLE_SHARE = 0.8


def worker_bytes(device: torch.device, compiles: bool) -> int:
    """The host memory of one worker without the model.

    Args:
        device: where the model runs.
        compiles: whether its backend may compile the model or build an engine of it.
    """
    if device.type == "cuda":
        return _CUDA_WORKER_BYTES
    return _WORKER_BYTES if compiles or sys.platform != "linux" else _FORKED_WORKER_BYTES


def workers_that_fit(each_bytes: int, once_bytes: int = 0) -> int | None:
    """How many workers the host's memory holds; None where that is unknown.

    Args:
        each_bytes: memory of one worker with the model.
        once_bytes: what is taken besides, however many there are.
    """
    free = free_host_bytes()
    if free is None:
        return None
    return max(0, int((_USABLE_SHARE * free - once_bytes) / each_bytes))


def free_host_bytes(root: Path = Path("/")) -> int | None:
    """Memory that new processes can take, within the container's limit; None where unknown.

    Args:
        root: of the file system.
    """
    known = [value for value in (_meminfo(root), cgroups.free_bytes(root)) if value is not None]
    return min(known, default=None)


def _meminfo(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) << 10 if values else None


def free_memory() -> None:
    """Give the GPU memory that torch has cached back to the driver; nothing without CUDA."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return
    gc.collect()  # models in reference cycles hold memory until they are collected
    with contextlib.suppress(Exception):  # a lost device cannot free anything
        torch.cuda.empty_cache()


def device_allocations() -> int:
    """How often torch's allocator has asked a GPU for memory in this process."""
    if not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("num_device_alloc", 0))


def free_device_bytes(device: torch.device) -> int | None:
    """Memory that the driver has left on a GPU; None elsewhere.

    Args:
        device: where the model runs.
    """
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0])
