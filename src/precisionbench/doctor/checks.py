"""From readings to lines that a person can act on: pure functions, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum

import attrs

from precisionbench.doctor.readings import NoiseTrial, Readings
from precisionbench.errors import some
from precisionbench.reference_data.peaks import Device, Peak, device_of
from precisionbench.report.formatting import scaled, significant, time_text
from precisionbench.statistics import Verdict
from precisionbench.statistics.verdicts import MARGIN

# A healthy device reaches more than this share of its peak in a large matmul or copy: an H200
# 65 to 90 % (docs/hardware.md). Above the peak it is not the device that it is taken for.
_LEAST_SHARE = 0.5
_MOST_SHARE = 1.05
# Tensor cores make half precision at least twice as fast; without them it gains little or nothing.
_HALF_GAIN = 1.3
# Desktop and server hosts launch in 3 to 8 us from Python, a Jetson's in 15 to 40.
_SLOW_LAUNCH_S = 12e-6
_COARSE_STEP_S = 2e-6
_BUSY_LOAD = 0.5
_IDLE_CLOCK_SHARE = 0.75  # causes.md C5: below this share of its highest, the clock is held down
_RATE_NAMES = {
    "fp32": "matmul FP32 (IEEE)",
    "tf32": "matmul TF32",
    "fp16": "matmul FP16",
    "bf16": "matmul BF16",
    "bandwidth": "copy on the device",
}
_RATE_UNITS = {"bandwidth": "B/s"}


class State(str, Enum):
    """What a check found."""

    GOOD = "good"
    ATTENTION = "attention"
    UNKNOWN = "unknown"


@attrs.frozen
class Check:
    """One line of an examination.

    Attributes:
        subject: what was looked at.
        state: whether that is as it should be.
        finding: what was found, with its figures.
        remedy: what to do about it; empty where nothing is to be done.
    """

    subject: str
    state: State
    finding: str
    remedy: str = ""


def checks_of(readings: Readings) -> tuple[Check, ...]:
    """All lines of an examination, in the order to show.

    Args:
        readings: what was measured.
    """
    rooms: Iterable[Callable[[Readings], Iterator[Check]]] = (
        _device,
        _clock,
        _launches,
        _rates,
        _half,
        _power,
        _host,
        _others,
        _noise,
        _backends,
    )
    return tuple(check for room in rooms for check in room(readings))


def _device(readings: Readings) -> Iterator[Check]:
    environment = readings.environment
    gpu = environment.gpu
    if gpu is None:
        yield Check(
            "device",
            State.ATTENTION,
            f"no GPU is used: {environment.cpu}, {environment.threads} threads",
            _no_gpu_remedy(environment.cuda),
        )
        return
    memory = f"{gpu.memory_bytes / 2**30:.0f} GiB"
    text = f"{gpu.name}, compute capability {gpu.compute_capability}, {memory}, driver {gpu.driver}"
    yield Check("device", State.GOOD, text)


def _no_gpu_remedy(cuda: str | None) -> str:
    if cuda is None:
        return "this torch was built without CUDA; install one that was, if there is a GPU"
    return "if there is an NVIDIA GPU, see whether nvidia-smi finds it and the driver is new enough"


def _clock(readings: Readings) -> Iterator[Check]:
    coarse = readings.clock_step_s > _COARSE_STEP_S
    name = "CUDA events" if readings.clock == "cuda_events" else "host clock"
    yield Check(
        "clock",
        State.ATTENTION if coarse else State.GOOD,
        f"{name} step in {time_text(readings.clock_step_s)}",
        "short calls share a sample, so that it matters little; prefer larger batches"
        if coarse
        else "",
    )


def _launches(readings: Readings) -> Iterator[Check]:
    slow = readings.launch_s > _SLOW_LAUNCH_S
    yield Check(
        "launch overhead",
        State.ATTENTION if slow else State.GOOD,
        f"the host needs {time_text(readings.launch_s)} for one small operation",
        "models of many small operations are bound by this host, whatever the precision: use "
        "larger batches, CUDA graphs or a compiled engine"
        if slow
        else "",
    )


# --- rates ----------------------------------------------------------------------------------------


def _rates(readings: Readings) -> Iterator[Check]:
    gpu = readings.environment.gpu
    device = device_of(gpu) if gpu else None
    for rate, subject in _RATE_NAMES.items():
        if rate in readings.rates:
            yield _rate(subject, rate, readings.rates[rate], device)
        else:
            yield Check(subject, State.UNKNOWN, readings.unknown.get(rate, "not measured"))


def _rate(subject: str, rate: str, value: float, device: Device | None) -> Check:
    text = scaled(value, _RATE_UNITS.get(rate, "FLOP/s"))
    peak = device.peaks.get(rate) if device else None
    if peak is None:
        return Check(subject, State.GOOD, f"{text}; this device's peak is not known")
    share = value / peak.value
    finding = f"{text}, {share:.0%} of {_told(peak, rate)}"
    if share < _LEAST_SHARE:
        return Check(subject, State.ATTENTION, finding, _SLOW_RATE)
    if share > _MOST_SHARE:
        return Check(subject, State.ATTENTION, finding, _IMPOSSIBLE_RATE)
    return Check(subject, State.GOOD, finding)


_SLOW_RATE = "see whether clocks, the power mode or other processes hold the device down"
_IMPOSSIBLE_RATE = "more than the device can do: it is not what it is taken for; please report it"


def _told(peak: Peak, rate: str) -> str:
    return f"the peak of {scaled(peak.value, _RATE_UNITS.get(rate, 'FLOP/s'))} ({peak.status})"


def _half(readings: Readings) -> Iterator[Check]:
    """Whether half precision can bring anything at all here."""
    rates = readings.rates
    if "fp32" not in rates or "fp16" not in rates:
        return
    gain = rates["fp16"] / rates["fp32"]
    text = f"FP16 multiplies {significant(gain, 2)} times as fast as FP32 here"
    if gain >= _HALF_GAIN:
        yield Check("half precision", State.GOOD, text)
    else:
        other = rates.get("bf16", 0.0) / rates["fp32"] >= _HALF_GAIN
        remedy = "stay with FP32 or TF32 on this device, or try INT8"
        if other:
            remedy = "try half:dtype=bfloat16, which is faster here"
        yield Check("half precision", State.ATTENTION, text, remedy)


# --- power, host, others --------------------------------------------------------------------------


def _power(readings: Readings) -> Iterator[Check]:
    environment, state = readings.environment, readings.state
    if environment.power_mode:
        highest = environment.power_mode.upper().startswith("MAXN")
        yield Check(
            "power mode",
            State.GOOD if highest else State.UNKNOWN,
            environment.power_mode,
            "" if highest else _POWER_MODES,
        )
    if environment.gpu is None:
        return
    if state is None or state.sm_clock_hz is None:
        yield Check(
            "clocks under load",
            State.UNKNOWN,
            "the driver does not tell",
            "watch tegrastats or nvidia-smi meanwhile",
        )
        return
    yield _clocks(readings)


_POWER_MODES = (
    "see /etc/nvpmodel.conf whether the board has a higher mode (nvpmodel -m NUMBER); "
    "jetson_clocks fixes the clocks"
)


def _clocks(readings: Readings) -> Check:
    gpu, state = readings.environment.gpu, readings.state
    assert gpu
    assert state
    assert state.sm_clock_hz
    parts = [f"{state.sm_clock_hz / 1e6:.0f} MHz"]
    if gpu.max_sm_clock_hz:
        parts[0] += f" of at most {gpu.max_sm_clock_hz / 1e6:.0f}"
    if state.power_w is not None:
        limit = f" of {gpu.power_limit_w:.0f}" if gpu.power_limit_w else ""
        parts.append(f"{state.power_w:.0f}{limit} W")
    if state.temperature_c is not None:
        parts.append(f"{state.temperature_c:.0f} °C")
    if state.throttled:
        parts.append(f"held down by {', '.join(state.throttled)}")
    low = bool(gpu.max_sm_clock_hz) and state.sm_clock_hz < _IDLE_CLOCK_SHARE * (
        gpu.max_sm_clock_hz or 0
    )
    remedy = (
        "cool it, raise the power limit, or lock the clocks lower (nvidia-smi --lock-gpu-clocks), "
        "so that they stay the same while you measure"
    )
    attention = low or bool(state.throttled)
    return Check(
        "clocks under load",
        State.ATTENTION if attention else State.GOOD,
        ", ".join(parts),
        remedy if attention else "",
    )


def _host(readings: Readings) -> Iterator[Check]:
    if readings.load is not None:
        busy = readings.load > _BUSY_LOAD
        yield Check(
            "host load",
            State.ATTENTION if busy else State.GOOD,
            f"{readings.load:.2f} processes for each core in the last minute",
            "end other programs: what the host does shows in every small batch" if busy else "",
        )
    if readings.governor is None:
        yield Check("CPU governor", State.UNKNOWN, "the system does not tell")
    else:
        steady = readings.governor == "performance"
        yield Check(
            "CPU governor",
            State.GOOD if steady else State.ATTENTION,
            readings.governor,
            "" if steady else "cpupower frequency-set -g performance keeps the host's clock steady",
        )


def _others(readings: Readings) -> Iterator[Check]:
    if readings.environment.gpu is None:
        return
    if readings.strangers is None:
        yield Check("other processes", State.UNKNOWN, "the driver does not list them")
    elif readings.strangers:
        text = f"{some(list(readings.strangers))} on this GPU"
        remedy = "end them, or measure when they are idle: what they do is in every figure"
        yield Check("other processes", State.ATTENTION, text, remedy)
    else:
        yield Check("other processes", State.GOOD, "nobody else is seen to compute on this GPU")


# --- noise ----------------------------------------------------------------------------------------

_WRONG = (Verdict.FASTER, Verdict.SLOWER)
_TRIAL_NAMES = {"device_bound": "noise, device-bound", "host_bound": "noise, host-bound"}
_NOISY = {
    "device_bound": "close what else runs, see the lines on clocks, and give more replicas= or "
    "sessions=",
    "host_bound": "small batches are noisy on every host: trust the device time beside the "
    "latency, use larger batches or CUDA graphs, or give more replicas=",
}


def _noise(readings: Readings) -> Iterator[Check]:
    for trial in readings.trials:
        yield _trial(trial, readings.known_spread)
    if readings.trouble:
        yield Check("noise", State.UNKNOWN, readings.trouble)


def _trial(trial: NoiseTrial, floor: float) -> Check:
    subject = _TRIAL_NAMES.get(trial.name, trial.name)
    if not trial.tells:
        text = (
            f"{trial.rounds} rounds of {trial.processes} processes ({trial.schedule}) fitted in, "
            "too few to tell"
        )
        return Check(subject, State.UNKNOWN, text, "free memory, or end what slows the machine")
    smallest = trial.smallest_effect(floor)
    text = (
        f"{trial.processes} processes of the same code differ by {trial.between:.2%} (sd), blocks "
        f"within one by {trial.within:.2%}; 19 of 20 runs tell a difference of "
        f"{significant(100 * smallest, 2)} %"
    )
    if trial.speedup.verdict in _WRONG:
        wrong = f"{text}; the same code was called {trial.speedup.verdict.value} than itself"
        remedy = "one run in twenty may; if it happens again, give sessions=3"
        return Check(subject, State.ATTENTION, wrong, remedy)
    if smallest > 2 * MARGIN:
        return Check(subject, State.ATTENTION, text, _NOISY.get(trial.name, ""))
    return Check(subject, State.GOOD, text)


def _backends(readings: Readings) -> Iterator[Check]:
    for backend in readings.backends:
        if backend.available:
            yield Check(f"backend {backend.name}", State.GOOD, "ready")
        else:
            text = f"needs {backend.requirement}" if backend.requirement else "not ready"
            yield Check(f"backend {backend.name}", State.ATTENTION, text, backend.remedy)
