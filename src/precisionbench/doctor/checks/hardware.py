"""Checks of the device, its power mode, and its clocks under load."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import Readings
from precisionbench.results import DeviceState, Gpu

_LOW_CLOCK_SHARE = 0.75  # below this share of its maximum, the clock is throttled
_POWER_MODES = (
    "select the highest mode listed in /etc/nvpmodel.conf (nvpmodel -m NUMBER); jetson_clocks "
    "locks the clocks"
)
_THROTTLED = (
    "improve the cooling, raise the power limit, or lock the clocks at a lower frequency "
    "(nvidia-smi --lock-gpu-clocks)"
)


def check_device(readings: Readings) -> Iterator[MachineCheck]:
    """Check whether there is a GPU.

    Args:
        readings: what was measured.
    """
    environment = readings.environment
    gpu = environment.gpu
    if gpu is None:
        yield MachineCheck(
            "device",
            State.ATTENTION,
            f"no GPU in use ({environment.cpu}, {environment.threads} threads)",
            _no_gpu_remedy(environment.cuda),
        )
        return
    memory = f"{gpu.memory_bytes / 2**30:.0f} GiB"
    text = f"{gpu.name}, compute capability {gpu.compute_capability}, {memory}, driver {gpu.driver}"
    yield MachineCheck("device", State.GOOD, text)


def _no_gpu_remedy(cuda: str | None) -> str:
    if cuda is None:
        return "this PyTorch is a build without CUDA; if there is a GPU, install a CUDA build"
    return "if there is an NVIDIA GPU, check with nvidia-smi that the driver is new enough"


def check_power(readings: Readings) -> Iterator[MachineCheck]:
    """Check the power mode of a Jetson, and a GPU's clocks under load.

    Args:
        readings: what was measured.
    """
    mode, gpu, state = readings.environment.power_mode, readings.environment.gpu, readings.state
    if mode:
        highest = mode.upper().startswith("MAXN")
        yield MachineCheck(
            "power mode",
            State.GOOD if highest else State.UNKNOWN,
            mode,
            "" if highest else _POWER_MODES,
        )
    if gpu is None:
        return
    if state is None or state.sm_clock_hz is None:
        yield MachineCheck(
            "clocks under load",
            State.UNKNOWN,
            "unavailable",
            "monitor the clocks with tegrastats or nvidia-smi while you measure",
        )
        return
    yield _clocks(gpu, state, state.sm_clock_hz)


def _clocks(gpu: Gpu, state: DeviceState, clock_hz: float) -> MachineCheck:
    max_hz = gpu.max_sm_clock_hz
    low = bool(max_hz) and clock_hz < _LOW_CLOCK_SHARE * (max_hz or 0)
    throttled = low or bool(state.throttled)
    return MachineCheck(
        "clocks under load",
        State.ATTENTION if throttled else State.GOOD,
        ", ".join(_clock_figures(gpu, state, clock_hz)),
        _THROTTLED if throttled else "",
    )


def _clock_figures(gpu: Gpu, state: DeviceState, clock_hz: float) -> Iterator[str]:
    most = f" (maximum {gpu.max_sm_clock_hz / 1e6:.0f} MHz)" if gpu.max_sm_clock_hz else ""
    yield f"{clock_hz / 1e6:.0f} MHz{most}"
    if state.power_w is not None:
        limit = f" (limit {gpu.power_limit_w:.0f} W)" if gpu.power_limit_w else ""
        yield f"{state.power_w:.0f} W{limit}"
    if state.temperature_c is not None:
        yield f"{state.temperature_c:.0f} °C"
    if state.throttled:
        yield f"throttled by {', '.join(state.throttled)}"
