"""Queries the NVIDIA driver through NVML; a driver may support some queries and not others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch


@contextlib.contextmanager
def opened(device: torch.device) -> Iterator[tuple[Any, Any] | None]:
    """The NVML library and its handle of a device; None without an NVIDIA driver.

    Args:
        device: any device.
    """
    library = _library() if device.type == "cuda" else None
    if library is None:
        yield None
        return
    try:
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        handle = query(lambda: library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode()))
        yield None if handle is None else (library, handle)
    finally:
        library.nvmlShutdown()


def _library() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver or no permission
        return None
    return pynvml


def query(call: Callable[[], Any]) -> Any:
    """The result of one query; None if the driver does not support it.

    Args:
        call: of the library.
    """
    try:
        return call()
    except Exception:  # NVMLError_NotSupported and its relatives
        return None


def total_energy_j(library: Any, handle: Any) -> float | None:
    """Energy consumed by the device since the driver was loaded, in joules.

    Args:
        library: pynvml.
        handle: of the device.
    """
    energy_mj = query(lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle))
    return None if energy_mj is None else energy_mj * 1e-3


def processes(library: Any, handle: Any) -> dict[int, str]:
    """Processes that compute on the device: names by process id.

    Args:
        library: pynvml.
        handle: of the device.
    """
    running = query(lambda: library.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return {process.pid: _name(library, process.pid) for process in running}


def processes_on(device: torch.device) -> dict[int, str]:
    """Processes that compute on a device: names by process id; none where it is not known.

    Args:
        device: any device.
    """
    with opened(device) as found:
        return processes(*found) if found else {}


def other_processes(listed: Mapping[int, str], ours: Collection[int]) -> list[str]:
    """Processes of others that compute on the device.

    A container has process ids of its own. If ours are not in the list, only the number of other
    processes is known.

    Args:
        listed: names by process id, as the driver lists them.
        ours: process ids of ours that certainly compute on the device.
    """
    if all(pid in listed for pid in ours):
        return [f"{name} (process {pid})" for pid, name in listed.items() if pid not in ours]
    return ["a process outside this container"] * max(0, len(listed) - len(ours))


def _name(library: Any, pid: int) -> str:
    name = query(lambda: library.nvmlSystemGetProcessName(pid))
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return text or "a process"
