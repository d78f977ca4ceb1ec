"""Telemetry around blocks, of a simulated driver and from a Jetson's files.

test_gpu.py reads the real driver; a real Jetson has not been tested (docs/hardware.md).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from precisionbench.system import nvml
from precisionbench.system.telemetry import (
    JetsonTelemetry,
    NoTelemetry,
    NvmlTelemetry,
    open_telemetry,
)

POWER_CAP_FIELD = 112


class Driver:
    """The part of pynvml that telemetry uses; each answer can be an exception."""

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


def test_figures_of_the_driver_are_converted_to_si_units():
    telemetry = NvmlTelemetry(Driver(), "handle")
    telemetry.before()
    state = telemetry.after()
    assert (state.sm_clock_hz, state.power_w, state.temperature_c) == (1.98e9, 350.0, 41)
    assert state.throttled == ()


def test_unsupported_queries_leave_values_unknown():
    refused = RuntimeError("Not Supported")
    telemetry = NvmlTelemetry(Driver(power=refused, reasons=refused, capped_ns=refused), "handle")
    telemetry.before()
    state = telemetry.after()
    assert state.power_w is None
    assert state.sm_clock_hz == 1.98e9
    assert state.throttled == ()


def test_a_power_cap_that_ended_within_the_block_is_detected():
    driver = Driver()
    telemetry = NvmlTelemetry(driver, "handle")
    telemetry.before()
    driver.answers["capped_ns"] = 5_000_000
    assert telemetry.after().throttled == ("sw_power_cap",)


def test_current_slowdowns_are_named():
    telemetry = NvmlTelemetry(Driver(reasons=0x8 | 0x40), "handle")
    telemetry.before()
    assert telemetry.after().throttled == ("hw_slowdown", "hw_thermal_slowdown")


def test_a_cpu_has_no_telemetry():
    with open_telemetry(torch.device("cpu")) as telemetry:
        assert isinstance(telemetry, NoTelemetry)
        telemetry.before()
        assert telemetry.after() is None


def test_a_jetson_is_read_from_its_files(jetson):
    with open_telemetry(torch.device("cuda"), jetson) as telemetry:
        telemetry.before()
        state = telemetry.after()
    assert (state.sm_clock_hz, state.temperature_c) == (1.377e9, 43.5)
    assert state.power_w == pytest.approx(28.5)  # all rails together


def test_the_rail_of_the_whole_module_is_used_alone(jetson):
    (jetson / "sys/class/hwmon/hwmon3/in2_label").write_text("VDD_IN\n")
    found = JetsonTelemetry.found(jetson)
    assert found is not None
    assert found.after().power_w == pytest.approx(9.5)


def test_missing_files_of_a_jetson_leave_values_unknown(jetson):
    for name in ("hwmon3/name", "hwmon3/in1_label"):
        (jetson / "sys/class/hwmon" / name).unlink()
    (jetson / "sys/class/devfreq/17000000.gv11b/cur_freq").write_text("busy")
    (jetson / "sys/class/thermal/thermal_zone1/type").unlink()
    state = JetsonTelemetry.found(jetson).after()
    assert (state.sm_clock_hz, state.power_w, state.temperature_c) == (None, None, None)


@pytest.mark.parametrize("missing", ["etc/nv_tegra_release", "sys/class/devfreq"])
def test_another_machine_is_no_jetson(jetson, missing):
    (jetson / missing).rename(jetson / "elsewhere")
    assert JetsonTelemetry.found(jetson) is None


def test_energy_and_processes_come_from_the_driver():
    library = SimpleNamespace(
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 12_500,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=7)],
        nvmlSystemGetProcessName=lambda pid: b"/usr/bin/python3",
    )
    assert nvml.total_energy_j(library, "handle") == 12.5
    assert nvml.processes(library, "handle") == {7: "/usr/bin/python3"}


def test_a_process_without_a_name_is_listed():
    library = SimpleNamespace(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=7)]
    )
    assert nvml.total_energy_j(library, "handle") is None
    assert nvml.processes(library, "handle") == {7: "a process"}
