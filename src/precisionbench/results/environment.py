"""The machine and its software, as a result records them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from precisionbench.display import Shown
from precisionbench.results.json_values import Json

_CAPABILITY = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")


def _check_capability(_: object, __: object, capability: str) -> None:
    if not _CAPABILITY.fullmatch(capability):
        raise ValueError("compute_capability must be two numbers, such as 9.0")


@attrs.frozen(repr=False)
class Gpu(Shown):
    """The GPU that was used; a field is None where the machine does not report it.

    Attributes:
        name: name that the driver reports.
        compute_capability: such as `9.0`.
        memory_bytes: total memory of the device.
        multiprocessors: number of multiprocessors.
        driver: version of the driver.
        power_limit_w: power limit, in watts.
        max_sm_clock_hz: highest clock of its multiprocessors.
        uuid: identifies this board.
    """

    name: str
    compute_capability: str = attrs.field(validator=_check_capability)
    memory_bytes: int
    multiprocessors: int
    driver: str | None = None
    power_limit_w: float | None = None
    max_sm_clock_hz: float | None = None
    uuid: str | None = None


@attrs.frozen(repr=False)
class Environment(Shown):
    """The machine, the versions and torch's settings before the measurement.

    Attributes:
        device: as for `compare`, such as `cuda:0`.
        gpu: the GPU; None on a CPU.
        platform: the operating system.
        python: version of Python.
        torch: version of torch.
        cuda: version of CUDA that torch was built for; None for a CPU build.
        cudnn: version of cuDNN; None where there is none.
        packages: versions of packages that can influence the results, by name.
        cpu: name of the CPU.
        cpu_cores: number of cores that this process may use.
        threads: number of threads that torch computes with.
        jetson: the release of a Jetson's software; None on other machines.
        flags: torch's global settings.
        power_mode: a Jetson's power mode, such as `MAXN`; None on other machines.
        cpu_flags: flags of the CPU's vector and matrix instructions, such as `avx512_bf16`; None
            where the system does not report them, and in older files.
        default_threads: number of threads that torch computes with by default: that of
            `OMP_NUM_THREADS`, or of physical cores; None in files that lack it.
    """

    device: str
    gpu: Gpu | None
    platform: str
    python: str
    torch: str
    cuda: str | None
    cudnn: str | None
    packages: Mapping[str, str]
    cpu: str
    cpu_cores: int
    threads: int
    jetson: str | None
    flags: Mapping[str, Json]
    power_mode: str | None = None
    cpu_flags: tuple[str, ...] | None = None
    default_threads: int | None = None
