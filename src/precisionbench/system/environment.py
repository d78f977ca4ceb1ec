"""The machine, versions and settings of torch, which are recorded with every result."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal.importing import installed_version
from precisionbench.results import Environment, Gpu
from precisionbench.system import nvml
from precisionbench.system.default_threads import default_threads
from precisionbench.system.nvml import query
from precisionbench.torchtools.global_state import read_flags


def capture(device: torch.device, packages: Iterable[str] = ()) -> Environment:
    """Describe this machine.

    Args:
        device: the device that will be measured.
        packages: distributions whose versions to record, besides those that torch works with.

    Returns:
        The machine, the versions that are installed, and torch's settings.
    """
    recorded = dict.fromkeys(("numpy", "torchvision", *packages, "triton"))
    return Environment(
        device=str(device),
        gpu=_gpu(device) if device.type == "cuda" else None,
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        cudnn=_cudnn(),
        packages={name: found for name in recorded if (found := installed_version(name))},
        cpu=_cpu(),
        cpu_cores=_cores(),
        threads=torch.get_num_threads(),
        jetson=_jetson(),
        flags=read_flags(),
        power_mode=_power_mode(),
        cpu_flags=cpu_flags(_cpuinfo()),
        default_threads=default_threads(),
    )


def _cudnn() -> str | None:
    number = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    if number is None:
        return None
    # cuDNN 9 counts major * 10000 + minor * 100, cuDNN 8 and older major * 1000.
    unit = 10000 if number >= 90000 else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def _cpuinfo() -> str:
    """What Linux reports of the CPU; empty on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu() -> str:
    lines = _cpuinfo().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# How the flags of vector and matrix instructions begin: x86, then ARM.
_VECTOR_FLAGS = ("avx", "amx", "f16c", "fma", "fphp", "asimd", "sve", "sme", "bf16", "i8mm")


def cpu_flags(cpuinfo: str) -> tuple[str, ...] | None:
    """The flags of a CPU's vector and matrix instructions.

    Args:
        cpuinfo: text of Linux's `/proc/cpuinfo`, of an x86 or ARM machine.

    Returns:
        The flags of the first core, sorted; None where the text has none.
    """
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(sorted(f for f in set(value.split()) if f.startswith(_VECTOR_FLAGS)))
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jetson() -> str | None:
    """The L4T release of a Jetson, from the file that every JetPack has."""
    try:
        return Path("/etc/nv_tegra_release").read_text().splitlines()[0].lstrip("# ")
    except (OSError, IndexError):
        return None


def _power_mode() -> str | None:
    """A Jetson's power mode, such as `MAXN`; it sets the clocks and how many cores run."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    names = [
        line.partition(":")[2].strip()
        for line in done.stdout.splitlines()
        if line.startswith("NV Power Mode")
    ]
    return names[0] if names else None


def _gpu(device: torch.device) -> Gpu:
    properties = torch.cuda.get_device_properties(device)
    return Gpu(
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        uuid=str(uuid) if (uuid := getattr(properties, "uuid", None)) else None,
        **_from_driver(device),
    )


def _from_driver(device: torch.device) -> dict[str, Any]:
    """What only the driver's management library reports."""
    with nvml.opened(device) as found:
        if found is None:
            return {}
        library, handle = found
        power_mw = query(lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle))
        clock_mhz = query(lambda: library.nvmlDeviceGetMaxClockInfo(handle, library.NVML_CLOCK_SM))
        return {
            "driver": query(library.nvmlSystemGetDriverVersion),
            "power_limit_w": power_mw / 1e3 if power_mw else None,
            "max_sm_clock_hz": clock_mhz * 1e6 if clock_mhz else None,
        }
