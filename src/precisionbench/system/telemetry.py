"""Reads the device's clock, power, temperature and throttling before and after blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from precisionbench.results import DeviceState
from precisionbench.system import nvml
from precisionbench.system.nvml import query

# Reasons of throttling that a user can act on: our name, NVML's bit in the current reasons, NVML's
# field with the time throttled so far (nvml.h, nvmlClocksEventReasons).
_REASONS = (
    ("sw_power_cap", 0x4, "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP"),
    ("hw_slowdown", 0x8, ""),
    ("sw_thermal_slowdown", 0x20, "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"),
    ("hw_thermal_slowdown", 0x40, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN"),
    ("hw_power_brake", 0x80, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN"),
)
_JETSON_GPUS = ("gpu", "gv11b", "ga10b", "gp10b", "gm20b")


class Telemetry(Protocol):
    """Reads the state of a device before and after a block, never inside."""

    def before(self) -> None:
        """Called right before a block."""
        ...

    def after(self) -> DeviceState | None:
        """Called right after the block; None if the state is unknown."""
        ...


class NoTelemetry:
    """A device whose state cannot be read."""

    def before(self) -> None:
        """Do nothing."""

    def after(self) -> None:
        """Do nothing: the state is unknown."""


@contextlib.contextmanager
def open_telemetry(device: torch.device, root: Path = Path("/")) -> Iterator[Telemetry]:
    """The telemetry that this machine has of a device.

    Args:
        device: where calls run.
        root: of the file system.
    """
    if device.type == "cuda" and (jetson := JetsonTelemetry.found(root)):
        yield jetson
        return
    with nvml.opened(device) as found:
        yield NvmlTelemetry(*found) if found else NoTelemetry()


class NvmlTelemetry:
    """Telemetry of the NVIDIA driver.

    Args:
        library: pynvml.
        handle: of the device.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        self._throttled_ns: dict[str, int] = {}

    def before(self) -> None:
        """Read how long the clocks have been throttled so far."""
        self._throttled_ns = self._counters()

    def after(self) -> DeviceState:
        """The state now, and what throttled the clocks since `before`."""
        library, handle = self._library, self._handle
        clock_mhz = query(lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))
        power_mw = query(lambda: library.nvmlDeviceGetPowerUsage(handle))
        return DeviceState(
            sm_clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
            power_w=None if power_mw is None else power_mw * 1e-3,
            temperature_c=query(
                lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)
            ),
            throttled=self._throttled(),
        )

    def _throttled(self) -> tuple[str, ...]:
        now = self._counters()
        current = query(self._current_reasons) or 0
        return tuple(
            name
            for name, bit, _ in _REASONS
            if current & bit or now.get(name, 0) > self._throttled_ns.get(name, now.get(name, 0))
        )

    def _current_reasons(self) -> int:
        current_reasons = getattr(
            self._library,
            "nvmlDeviceGetCurrentClocksEventReasons",
            self._library.nvmlDeviceGetCurrentClocksThrottleReasons,
        )
        return int(current_reasons(self._handle))

    def _counters(self) -> dict[str, int]:
        """Nanoseconds throttled for each reason, as far as the driver counts them."""
        found = {}
        for name, _, field in _REASONS:
            number = getattr(self._library, field, None) if field else None
            if number is not None and (value := self._field(number)) is not None:
                found[name] = value
        return found

    def _field(self, number: int) -> int | None:
        answers = query(lambda: self._library.nvmlDeviceGetFieldValues(self._handle, [number]))
        if not answers or answers[0].nvmlReturn:
            return None
        return int(answers[0].value.ullVal)


class JetsonTelemetry:
    """Telemetry from a Jetson's files; its integrated GPU has no full NVML.

    Args:
        clock: devfreq's `cur_freq` of the GPU, in Hz.
        power: folders of power monitors (INA3221).
        temperature: of the GPU's thermal zone, in thousandths of a degree.
    """

    def __init__(self, clock: Path, power: list[Path], temperature: Path | None) -> None:
        self._clock, self._power, self._temperature = clock, power, temperature

    @classmethod
    def found(cls, root: Path) -> JetsonTelemetry | None:
        """The telemetry of this machine; None if it is not a Jetson.

        Args:
            root: of the file system.
        """
        clocks = [
            folder / "cur_freq"
            for folder in sorted((root / "sys/class/devfreq").glob("*"))
            if any(name in folder.name for name in _JETSON_GPUS)
        ]
        if not clocks or not (root / "etc/nv_tegra_release").exists():
            return None
        monitors = sorted((root / "sys/class/hwmon").glob("*"))
        power = [folder for folder in monitors if _text(folder / "name") == "ina3221"]
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        gpu = [z for z in zones if (_text(z / "type") or "").lower().startswith("gpu")]
        return cls(clocks[0], power, gpu[0] / "temp" if gpu else None)

    def before(self) -> None:
        """Do nothing: a Jetson has no counters."""

    def after(self) -> DeviceState:
        """The state now; a Jetson does not report throttling."""
        temperature = _number(self._temperature) if self._temperature else None
        return DeviceState(
            sm_clock_hz=_number(self._clock),
            power_w=self.power_w(),
            temperature_c=None if temperature is None else temperature * 1e-3,
        )

    def power_w(self) -> float | None:
        """Power of the whole module if there is such a rail, else the sum of all rails."""
        rails: dict[str, float] = {}
        for folder in self._power:
            for label in sorted(folder.glob("in*_label")):
                number = label.name.removeprefix("in").removesuffix("_label")
                volts = _number(folder / f"in{number}_input")
                amperes = _number(folder / f"curr{number}_input")
                if volts is not None and amperes is not None:
                    rails[_text(label) or label.name] = volts * amperes * 1e-6
        if not rails:
            return None
        return rails.get("VDD_IN", sum(rails.values()))


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _number(file: Path) -> float | None:
    try:
        return float(_text(file) or "")
    except ValueError:
        return None
