"""The device around blocks: a driver's double, and a Jetson's files.

The real driver is asked in test_gpu.py; a real Jetson has not been asked (docs/hardware.md).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from precisionbench.system import nvml
from precisionbench.system.telemetry import JetsonFiles, NvmlWatch, Unwatched, watching

POWER_CAP_FIELD = 112


class Driver:
    """What of pynvml a watch asks; each answer can be made an error."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP = POWER_CAP_FIELD

    def __init__(self, **answers: object) -> None:
        self.answers = {
            "clock": 1980,
            "power": 350_000,
            "temperature": 41,
            "reasons": 0,
            "capped_ns": 0,
            **answers,
        }

    def _answer(self, name: str) -> object:
        found = self.answers[name]
        if isinstance(found, Exception):
            raise found
        return found

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return self._answer("clock")

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._answer("power")

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._answer("temperature")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._answer("reasons")

    def nvmlDeviceGetFieldValues(self, handle, fields):
        assert fields == [POWER_CAP_FIELD]
        value = SimpleNamespace(ullVal=self._answer("capped_ns"))
        return [SimpleNamespace(nvmlReturn=0, value=value)]


def test_the_drivers_figures_come_in_our_units():
    watch = NvmlWatch(Driver(), "handle")
    watch.before()
    state = watch.after()
    assert (state.sm_clock_hz, state.power_w, state.temperature_c) == (1.98e9, 350.0, 41)
    assert state.throttled == ()


def test_what_the_driver_does_not_tell_is_left_open():
    refused = RuntimeError("Not Supported")
    watch = NvmlWatch(Driver(power=refused, reasons=refused, capped_ns=refused), "handle")
    watch.before()
    state = watch.after()
    assert state.power_w is None
    assert state.sm_clock_hz == 1.98e9
    assert state.throttled == ()


def test_a_cap_during_the_block_is_seen_though_it_is_over_when_we_look():
    driver = Driver()
    watch = NvmlWatch(driver, "handle")
    watch.before()
    driver.answers["capped_ns"] = 5_000_000
    assert watch.after().throttled == ("sw_power_cap",)


def test_a_slowdown_that_lasts_is_named():
    watch = NvmlWatch(Driver(reasons=0x8 | 0x40), "handle")
    watch.before()
    assert watch.after().throttled == ("hw_slowdown", "hw_thermal_slowdown")


def test_without_a_gpu_nothing_is_watched():
    with watching(torch.device("cpu")) as watch:
        assert isinstance(watch, Unwatched)
        watch.before()
        assert watch.after() is None


def test_a_jetson_is_read_from_its_files(jetson):
    with watching(torch.device("cuda"), jetson) as watch:
        watch.before()
        state = watch.after()
    assert (state.sm_clock_hz, state.temperature_c) == (1.377e9, 43.5)
    assert state.power_w == pytest.approx(28.5)  # all rails together


def test_a_rail_of_the_whole_module_counts_alone(jetson):
    (jetson / "sys/class/hwmon/hwmon3/in2_label").write_text("VDD_IN\n")
    found = JetsonFiles.found(jetson)
    assert found is not None
    assert found.after().power_w == pytest.approx(9.5)


def test_a_jetson_that_tells_little_is_left_open(jetson):
    for name in ("hwmon3/name", "hwmon3/in1_label"):
        (jetson / "sys/class/hwmon" / name).unlink()
    (jetson / "sys/class/devfreq/17000000.gv11b/cur_freq").write_text("busy")
    (jetson / "sys/class/thermal/thermal_zone1/type").unlink()
    state = JetsonFiles.found(jetson).after()
    assert (state.sm_clock_hz, state.power_w, state.temperature_c) == (None, None, None)


@pytest.mark.parametrize("missing", ["etc/nv_tegra_release", "sys/class/devfreq"])
def test_another_machine_is_no_jetson(jetson, missing):
    (jetson / missing).rename(jetson / "elsewhere")
    assert JetsonFiles.found(jetson) is None


def test_energy_and_processes_come_from_the_driver():
    library = SimpleNamespace(
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 12_500,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=7)],
        nvmlSystemGetProcessName=lambda pid: b"/usr/bin/python3",
    )
    assert nvml.total_energy_j(library, "handle") == 12.5
    assert nvml.processes(library, "handle") == {7: "/usr/bin/python3"}


def test_a_driver_that_names_nobody_leaves_a_process_without_a_name():
    library = SimpleNamespace(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=7)]
    )
    assert nvml.total_energy_j(library, "handle") is None
    assert nvml.processes(library, "handle") == {7: "a process"}
