"""The device's clock, power, temperature and throttling around blocks, never inside one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from precisionbench.results.records import DeviceState
from precisionbench.system import nvml
from precisionbench.system.nvml import asked

# What holds clocks down for a reason that a user can act on: our name, NVML's bit in the current
# reasons, NVML's field with the time spent so (nvml.h, nvmlClocksEventReasons).
_REASONS = (
    ("sw_power_cap", 0x4, "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP"),
    ("hw_slowdown", 0x8, ""),
    ("sw_thermal_slowdown", 0x20, "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"),
    ("hw_thermal_slowdown", 0x40, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN"),
    ("hw_power_brake", 0x80, "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN"),
)
_JETSON_GPUS = ("gpu", "gv11b", "ga10b", "gp10b", "gm20b")


class Watch(Protocol):
    """Looks at the device before and after a block, never inside."""

    def before(self) -> None:
        """Called just before a block."""
        ...

    def after(self) -> DeviceState | None:
        """Called just after it."""
        ...


class Unwatched:
    """Nothing tells of the device."""

    def before(self) -> None:
        """Nothing."""

    def after(self) -> None:
        """Nothing."""


@contextlib.contextmanager
def watching(device: torch.device, root: Path = Path("/")) -> Iterator[Watch]:
    """What there is to look at a device with.

    Args:
        device: where calls run.
        root: of the file system.
    """
    if device.type == "cuda" and (files := JetsonFiles.found(root)):
        yield files
        return
    with nvml.opened(device) as found:
        yield NvmlWatch(*found) if found else Unwatched()


class NvmlWatch:
    """The driver's figures.

    Args:
        library: pynvml.
        handle: of the device.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        self._spent: dict[str, int] = {}

    def before(self) -> None:
        """Note how long clocks have been held down so far."""
        self._spent = self._counters()

    def after(self) -> DeviceState:
        """The state now, and what held the clocks down since `before`."""
        library, handle = self._library, self._handle
        clock_mhz = asked(lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))
        power_mw = asked(lambda: library.nvmlDeviceGetPowerUsage(handle))
        return DeviceState(
            sm_clock_hz=None if clock_mhz is None else clock_mhz * 1e6,
            power_w=None if power_mw is None else power_mw * 1e-3,
            temperature_c=asked(
                lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)
            ),
            throttled=self._throttled(),
        )

    def _throttled(self) -> tuple[str, ...]:
        now = self._counters()
        current = asked(self._current_reasons) or 0
        return tuple(
            name
            for name, bit, _ in _REASONS
            if current & bit or now.get(name, 0) > self._spent.get(name, now.get(name, 0))
        )

    def _current_reasons(self) -> int:
        ask = getattr(
            self._library,
            "nvmlDeviceGetCurrentClocksEventReasons",
            self._library.nvmlDeviceGetCurrentClocksThrottleReasons,
        )
        return int(ask(self._handle))

    def _counters(self) -> dict[str, int]:
        """Nanoseconds spent for each reason, where the driver counts them."""
        found = {}
        for name, _, field in _REASONS:
            number = getattr(self._library, field, None) if field else None
            if number is not None and (value := self._field(number)) is not None:
                found[name] = value
        return found

    def _field(self, number: int) -> int | None:
        answers = asked(lambda: self._library.nvmlDeviceGetFieldValues(self._handle, [number]))
        if not answers or answers[0].nvmlReturn:
            return None
        return int(answers[0].value.ullVal)


class JetsonFiles:
    """A Jetson's own files; its integrated GPU has no full NVML.

    Args:
        clock: devfreq's `cur_freq` of the GPU, in Hz.
        power: folders of power monitors (INA3221).
        temperature: of the GPU's thermal zone, in thousandths of a degree.
    """

    def __init__(self, clock: Path, power: list[Path], temperature: Path | None) -> None:
        self._clock, self._power, self._temperature = clock, power, temperature

    @classmethod
    def found(cls, root: Path) -> JetsonFiles | None:
        """Those of this machine; None where it is no Jetson.

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
        """Nothing is counted."""

    def after(self) -> DeviceState:
        """The state now; what throttles a Jetson it does not tell."""
        temperature = _number(self._temperature) if self._temperature else None
        return DeviceState(
            sm_clock_hz=_number(self._clock),
            power_w=self.power_w(),
            temperature_c=None if temperature is None else temperature * 1e-3,
        )

    def power_w(self) -> float | None:
        """The whole module's input where there is such a rail, else all rails together."""
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
