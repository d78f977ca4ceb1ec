"""Memory of the host and the device: how much is free, how many workers fit, giving it back."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import torch

# Host memory of a worker without the model: torch and a CUDA context.
_WORKER_BYTES = {"cuda": 2 << 30}
_WORKER_BYTES_ELSEWHERE = 600 << 20
_USABLE_SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")


def workers_that_fit(device: torch.device, model_bytes: int) -> int | None:
    """How many workers the host's memory holds; None where that is unknown.

    Args:
        device: where the model runs.
        model_bytes: size of its weights.
    """
    free = free_host_bytes()
    if free is None:
        return None
    each = _WORKER_BYTES.get(device.type, _WORKER_BYTES_ELSEWHERE) + 2 * model_bytes
    return int(_USABLE_SHARE * free / each)


def free_host_bytes(root: Path = Path("/")) -> int | None:
    """Memory that new processes can take, within the container's limit; None where unknown.

    Args:
        root: of the file system.
    """
    known = [value for value in (_meminfo(root), _cgroup_free(root)) if value is not None]
    return min(known, default=None)


def _meminfo(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(values[0]) << 10 if values else None


def _cgroup_free(root: Path) -> int | None:
    folder = root / _CGROUP.relative_to("/")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + _cached_files(folder))


def _cached_files(folder: Path) -> int:
    """Files cached in memory: counted as used, and given back at once when memory is needed."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = [line.split()[1] for line in lines if line.startswith("inactive_file ")]
    return int(values[0]) if values else 0


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
