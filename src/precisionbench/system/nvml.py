"""Questions to the NVIDIA driver; any of them may be unsupported on its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch

from precisionbench.errors import some


@contextlib.contextmanager
def opened(device: torch.device) -> Iterator[tuple[Any, Any] | None]:
    """The driver's library and its handle of a device; None where there is no such driver.

    Args:
        device: any device.
    """
    library = _library() if device.type == "cuda" else None
    if library is None:
        yield None
        return
    try:
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        handle = asked(lambda: library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode()))
        yield None if handle is None else (library, handle)
    finally:
        library.nvmlShutdown()


def _library() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission: all mean "not told"
        return None
    return pynvml


def asked(question: Callable[[], Any]) -> Any:
    """The answer to one question; None where the driver does not tell.

    Args:
        question: calls the library.
    """
    try:
        return question()
    except Exception:  # NVMLError_NotSupported and its relatives
        return None


def total_energy_j(library: Any, handle: Any) -> float | None:
    """Energy that the device has drawn since the driver was loaded, in joules.

    Args:
        library: pynvml.
        handle: of the device.
    """
    energy_mj = asked(lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle))
    return None if energy_mj is None else energy_mj * 1e-3


def processes(library: Any, handle: Any) -> dict[int, str]:
    """Processes that compute on the device: names by process id.

    Args:
        library: pynvml.
        handle: of the device.
    """
    running = asked(lambda: library.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return {process.pid: _name(library, process.pid) for process in running}


def other_processes(listed: Mapping[int, str], ours: Collection[int]) -> list[str]:
    """Who of those that compute on the device is none of us.

    A container has process ids of its own. Where ours are not on the list, all that it tells is
    how many there are.

    Args:
        listed: names by process id, as the driver lists them.
        ours: process ids of ours that surely compute on it.
    """
    if all(pid in listed for pid in ours):
        return [f"{name} (process {pid})" for pid, name in listed.items() if pid not in ours]
    return ["a process outside this container"] * max(0, len(listed) - len(ours))


def note_of_other_processes(names: list[str]) -> str:
    """A sentence about others that compute on the device; empty where there is nobody.

    Args:
        names: as `other_processes` gives them.
    """
    if not names:
        return ""
    return (
        f"others compute on this GPU ({some(names)}), and what they do is in every figure; end "
        "them, or measure when they are idle"
    )


def _name(library: Any, pid: int) -> str:
    name = asked(lambda: library.nvmlSystemGetProcessName(pid))
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return text or "a process"
