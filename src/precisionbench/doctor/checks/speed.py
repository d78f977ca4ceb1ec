"""Checks of the timer's step, the launch overhead, and the rates of matmuls and copies."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import Readings
from precisionbench.reference_data.peaks import DeviceSpec, Peak, device_of
from precisionbench.report.formatting import scaled, significant, time_text

# A healthy device reaches more than this share of its peak in a large matmul or copy: an H200
# 65 to 90 % (docs/hardware.md). A rate above the peak shows that the device was misidentified.
_LOW_SHARE = 0.5
_IMPOSSIBLE_SHARE = 1.05
# Tensor cores make half precision at least twice as fast; without them it gains little or nothing.
_HALF_GAIN = 1.3
# Desktop and server hosts launch in 3 to 8 us from Python, a Jetson's in 15 to 40.
_SLOW_LAUNCH_S = 12e-6
_COARSE_STEP_S = 2e-6
_RATE_SUBJECTS = {
    "fp32": "matmul FP32 (IEEE)",
    "tf32": "matmul TF32",
    "fp16": "matmul FP16",
    "bf16": "matmul BF16",
    "bandwidth": "copy on the device",
}
_RATE_UNITS = {"bandwidth": "B/s"}
_LOW_RATE = "check the clocks, the power mode and other processes on the device"
_IMPOSSIBLE_RATE = "above the peak, so the device was identified wrongly; please report it"


def check_timer(readings: Readings) -> Iterator[MachineCheck]:
    """Check the smallest step of the timer.

    Args:
        readings: what was measured.
    """
    coarse = readings.clock_step_s > _COARSE_STEP_S
    name = "CUDA events" if readings.clock == "cuda_events" else "host clock"
    yield MachineCheck(
        "clock",
        State.ATTENTION if coarse else State.GOOD,
        f"{name}, resolution {time_text(readings.clock_step_s)}",
        "short calls are timed together in one sample; prefer larger batches" if coarse else "",
    )


def check_launch_overhead(readings: Readings) -> Iterator[MachineCheck]:
    """Check the launch overhead: the host's time to launch an operation.

    Args:
        readings: what was measured.
    """
    slow = readings.launch_s > _SLOW_LAUNCH_S
    yield MachineCheck(
        "launch overhead",
        State.ATTENTION if slow else State.GOOD,
        f"{time_text(readings.launch_s)} per operation",
        "models of many small operations are launch-bound on this host in every precision: use "
        "larger batches, CUDA graphs or a compiled engine"
        if slow
        else "",
    )


def check_rates(readings: Readings) -> Iterator[MachineCheck]:
    """Compare the rates of matmuls and copies with the device's peaks.

    Args:
        readings: what was measured.
    """
    gpu = readings.environment.gpu
    device = device_of(gpu) if gpu else None
    for rate, subject in _RATE_SUBJECTS.items():
        if rate in readings.rates:
            yield _rate(subject, rate, readings.rates[rate], device)
        else:
            yield MachineCheck(subject, State.UNKNOWN, readings.unknown.get(rate, "not measured"))


def _rate(subject: str, rate: str, value: float, device: DeviceSpec | None) -> MachineCheck:
    text = scaled(value, _RATE_UNITS.get(rate, "FLOP/s"))
    peak = device.peaks.get(rate) if device else None
    if peak is None:
        return MachineCheck(subject, State.GOOD, f"{text} (the peak of this device is not known)")
    share = value / peak.value
    finding = f"{text}, {share:.0%} of {_peak_text(peak, rate)}"
    if share < _LOW_SHARE:
        return MachineCheck(subject, State.ATTENTION, finding, _LOW_RATE)
    if share > _IMPOSSIBLE_SHARE:
        return MachineCheck(subject, State.ATTENTION, finding, _IMPOSSIBLE_RATE)
    return MachineCheck(subject, State.GOOD, finding)


def _peak_text(peak: Peak, rate: str) -> str:
    return f"peak {scaled(peak.value, _RATE_UNITS.get(rate, 'FLOP/s'))} ({peak.status})"


def check_half_precision(readings: Readings) -> Iterator[MachineCheck]:
    """Check whether half precision is faster than FP32 on this device.

    Args:
        readings: what was measured.
    """
    rates = readings.rates
    if "fp32" not in rates or "fp16" not in rates:
        return
    gain = rates["fp16"] / rates["fp32"]
    text = f"FP16 matmul is {significant(gain, 2)}x as fast as FP32"
    if gain >= _HALF_GAIN:
        yield MachineCheck("half precision", State.GOOD, text)
        return
    bf16_is_fast = rates.get("bf16", 0.0) / rates["fp32"] >= _HALF_GAIN
    remedy = (
        "try half:dtype=bfloat16, which is faster here"
        if bf16_is_fast
        else "use FP32 or TF32 on this device, or try INT8"
    )
    yield MachineCheck("half precision", State.ATTENTION, text, remedy)
