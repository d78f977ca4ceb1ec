"""`doctor`: from the readings of a machine to lines with a state and a remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.cli import main
from precisionbench.doctor.checks import MachineCheck, State, checks_of
from precisionbench.doctor.machine_readings import other_processes, state_under_load
from precisionbench.doctor.noise_trials import noise_trial, noise_trials
from precisionbench.doctor.readings import NoiseTrial, Readiness, Readings
from precisionbench.doctor.text import to_text
from precisionbench.errors import SpecError, WorkerError, WorkloadError
from precisionbench.probes import machine
from precisionbench.results import CpuUse, DeviceState, Gpu, Speedup, Verdict

H200 = Gpu("NVIDIA H200", "9.0", 139 << 30, 132, "580.1", 700.0, 1980e6)
QUIET = NoiseTrial(
    "device_bound", 3e-3, 2e-4, 2e-3, 6, Speedup(1.0, 0.996, 1.004, Verdict.EQUIVALENT, "")
)
RATES = {"fp32": 52e12, "tf32": 400e12, "fp16": 700e12, "bf16": 710e12, "bandwidth": 4.1e12}


def healthy(**changes: Any) -> Readings:
    """An H200 without any problem."""
    environment = attrs.evolve(comparison_data().environment, gpu=H200)
    readings = Readings(
        environment=environment,
        clock="cuda_events",
        clock_step_s=0.5e-6,
        launch_s=4e-6,
        rates=RATES,
        unknown={},
        state=DeviceState(1980e6, 650.0, 60.0),
        load=0.1,
        governor="performance",
        strangers=(),
        backends=(Readiness("eager", True),),
        trials=(QUIET, attrs.evolve(QUIET, name="host_bound")),
    )
    return attrs.evolve(readings, **changes)


def with_gpu(readings: Readings, **changes: Any) -> Readings:
    environment = readings.environment
    gpu = attrs.evolve(environment.gpu, **changes)
    return attrs.evolve(readings, environment=attrs.evolve(environment, gpu=gpu))


def line(readings: Readings, subject: str) -> MachineCheck:
    return next(check for check in checks_of(readings) if check.subject == subject)


def test_a_healthy_machine_has_no_problems():
    assert [check.subject for check in checks_of(healthy()) if check.state is not State.GOOD] == []
    assert "No check needs attention" in to_text(checks_of(healthy()), 0.002)


CPU_ONLY = attrs.evolve(healthy().environment, gpu=None, cuda=None)


@pytest.mark.parametrize(
    ("readings", "subject", "finding", "remedy"),
    [
        (healthy(environment=CPU_ONLY), "device", "no GPU", "build without CUDA"),
        (
            healthy(environment=attrs.evolve(CPU_ONLY, cuda="13.0")),
            "device",
            "no GPU",
            "nvidia-smi",
        ),
        (healthy(clock_step_s=5e-6), "clock", "resolution 5.0 µs", "larger batches"),
        (healthy(launch_s=30e-6), "launch overhead", "30 µs", "CUDA graphs"),
        (
            healthy(rates={**RATES, "fp16": 200e12}),
            "matmul FP16",
            "20% of peak 990 TFLOP/s (cited)",
            "power mode",
        ),
        (healthy(rates={**RATES, "fp32": 90e12}), "matmul FP32 (IEEE)", "134%", "report it"),
        (
            healthy(rates={**RATES, "bandwidth": 1e12}),
            "copy on the device",
            "1.00 TB/s, 21%",
            "power mode",
        ),
        (
            healthy(rates={"fp32": 9e12, "fp16": 0.2e12, "bf16": 1e12}),
            "half precision",
            "0.022x as fast as FP32",
            "use FP32 or TF32",
        ),
        (
            healthy(rates={"fp32": 1e12, "fp16": 1e12, "bf16": 3e12}),
            "half precision",
            "1.0x as fast as FP32",
            "dtype=bfloat16",
        ),
        (
            healthy(state=DeviceState(1200e6, 700.0, 85.0, ("sw_power_cap",))),
            "clocks under load",
            "1200 MHz (maximum 1980 MHz), 700 W (limit 700 W), 85 °C, throttled by sw_power_cap",
            "lock the clocks",
        ),
        (healthy(load=0.9), "host load", "load average 0.90 per core", "stop other programs"),
        (
            healthy(cpu=CpuUse(2.0, 2, 3.4, 0.2)),
            "host load",
            "other processes kept 1.6 of 2 CPU cores busy",
            "stop other programs",
        ),
        (healthy(governor="schedutil"), "CPU governor", "schedutil", "performance"),
        (healthy(strangers=("Xorg (process 9)",)), "other processes", "Xorg", "stop them"),
        (
            healthy(backends=(Readiness("torch2trt", False, "TensorRT", "install it"),)),
            "backend torch2trt",
            "not available: requires TensorRT",
            "install it",
        ),
        (
            healthy(trials=(attrs.evolve(QUIET, between=0.03),)),
            "noise, device-bound",
            "a difference of 11 %",
            "replicas",
        ),
        (
            healthy(
                trials=(attrs.evolve(QUIET, speedup=Speedup(1.02, 1.01, 1.03, Verdict.FASTER, "")),)
            ),
            "noise, device-bound",
            "wrong verdict: identical code was faster",
            "3 sessions",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_problem_is_reported_with_its_figure_and_a_remedy(readings, subject, finding, remedy):
    check = line(readings, subject)
    assert check.state is State.ATTENTION
    assert finding in check.finding
    assert remedy in check.remedy
    assert subject in to_text(checks_of(readings), None)


def test_the_summary_counts_every_line_that_is_marked():
    missing = Readiness("apex-amp", False, "NVIDIA Apex", "install it")
    readings = attrs.evolve(healthy(), backends=(missing,), load=4.0, cpu=None)
    checks = checks_of(readings)
    shown = to_text(checks, None)
    marked = [line for line in shown.splitlines() if line.startswith("!")]
    assert len(marked) == 2
    assert f"2 of {len(checks)} checks need attention: host load, backend apex-amp." in shown


def test_a_load_of_our_own_is_none():
    """The load average counts our own work, so it decides only where nothing else is known."""
    check = line(healthy(load=0.9, cpu=CpuUse(2.0, 2, 2.1, 2.0)), "host load")
    assert (check.state, check.finding) == (
        State.GOOD,
        "other processes kept 0.1 of 2 CPU cores busy",
    )


def test_missing_readings_are_unknown():
    readings = healthy(
        rates={},
        unknown={"tf32": "this device has no TF32"},
        state=None,
        governor=None,
        trials=(),
        trouble="it could not be measured (a worker died)",
    )
    states = {check.subject: check.state for check in checks_of(readings)}
    assert states["matmul TF32"] is State.UNKNOWN
    assert states["clocks under load"] is State.UNKNOWN
    assert states["CPU governor"] is State.UNKNOWN
    assert states["noise"] is State.UNKNOWN
    assert line(readings, "matmul TF32").finding == "this device has no TF32"


def test_a_device_without_a_known_peak_is_not_compared_with_one():
    check = line(with_gpu(healthy(), name="NVIDIA Unheard Of"), "matmul FP16")
    assert check.state is State.GOOD
    assert "the peak of this device is not known" in check.finding


def test_the_smallest_effect_is_half_an_interval_and_1645_standard_errors():
    noisy = attrs.evolve(QUIET, between=0.01)
    half_width = 2.776 * 0.01 * math.sqrt(2 / 3)  # t(4), three processes a side
    assert noisy.smallest_effect(0.0) == pytest.approx(half_width * (1 + 1.645 / 2.776), rel=0.02)
    still = attrs.evolve(QUIET, between=1e-9)
    assert still.smallest_effect(0.0025) == pytest.approx(
        1.96 * 0.0025 * math.sqrt(2 / 3), rel=0.01
    )


def test_the_noise_floor_is_at_least_the_known_spread_of_such_devices():
    assert healthy().noise_floor == 0.0025
    assert healthy(trials=(attrs.evolve(QUIET, between=0.01),)).noise_floor == 0.01
    assert healthy(trials=()).noise_floor is None


@pytest.mark.parametrize(
    "changes", [{"processes": 2}, {"rounds": 3}, {"schedule": "restarts", "between": 0.0}]
)
def test_a_trial_that_was_too_short_is_unknown(changes):
    readings = healthy(trials=(attrs.evolve(QUIET, **changes),))
    check = line(readings, "noise, device-bound")
    assert check.state is State.UNKNOWN
    assert "inconclusive" in check.finding
    assert readings.noise_floor is None


def test_a_lower_power_mode_of_a_jetson_is_unknown():
    """Not every board has a MAXN."""
    modes = {
        mode: line(with_mode(mode), "power mode").state for mode in ("MAXN", "MAXN_SUPER", "15W")
    }
    assert modes == {"MAXN": State.GOOD, "MAXN_SUPER": State.GOOD, "15W": State.UNKNOWN}
    assert "/etc/nvpmodel.conf" in line(with_mode("15W"), "power mode").remedy


def with_mode(mode: str) -> Readings:
    return healthy(environment=attrs.evolve(healthy().environment, power_mode=mode))


def test_other_processes_are_unknown_where_the_driver_lists_none():
    assert line(healthy(strangers=None), "other processes").state is State.UNKNOWN
    assert other_processes(torch.device("cpu")) is None


# --- on this machine ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_state() -> dict[str, Any]:
    """Global state of torch before and after the examination."""
    return {}


@pytest.fixture(scope="module")
def examination(torch_state: dict[str, Any]) -> Iterator[pb.Examination]:
    """One real examination of the CPU, with small matmuls and copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "CPU_MATMUL_ROWS", 256)
        patch.setattr(machine, "CPU_COPIED_BYTES", 16 << 20)
        torch_state["before"] = torch.get_float32_matmul_precision(), torch.get_rng_state()
        found = pb.examine("cpu", quick=True)
        torch_state["after"] = torch.get_float32_matmul_precision(), torch.get_rng_state()
    return found


def test_this_machine_is_measured(examination):
    readings = examination.readings
    assert readings.rates["fp32"] > 1e8
    assert readings.rates["bandwidth"] > 1e8
    assert readings.unknown["tf32"] == "TF32 is not supported on this device"
    assert 0 < readings.clock_step_s < readings.launch_s < 1e-3
    assert {backend.name for backend in readings.backends} >= {"eager", "half", "torch2trt"}
    assert readings.noise_floor is None


def test_an_examination_restores_the_state_of_torch(examination, torch_state):
    precision, rng_state = torch_state["before"]
    assert torch_state["after"][0] == precision
    assert torch.equal(torch_state["after"][1], rng_state)


def short_compare(*args: Any, **options: Any) -> pb.Comparison:
    """`compare` with a budget that is enough for the first blocks of each process."""
    return pb.compare(*args, **{**options, "budget_s": 1.0})


@pytest.mark.slow
def test_noise_is_measured_in_fresh_processes():
    progress: list[Any] = []
    device = torch.device("cpu")
    (device_bound, host_bound), trouble = noise_trials(device, 2, progress.append, short_compare)
    assert trouble == ""
    assert (device_bound.processes, host_bound.processes) == (4, 4)
    assert device_bound.latency_s > host_bound.latency_s
    assert device_bound.between > 0
    assert progress


def test_a_failed_trial_is_reported():
    def failing(*_: object, **__: object) -> pb.Comparison:
        raise WorkerError("a worker died", "look")

    trials, trouble = noise_trials(torch.device("cpu"), 3, None, failing)
    assert trials == ()
    assert "a worker died; look" in trouble


def test_ctrl_c_in_a_trial_ends_the_trials():
    interrupted = comparison_data(schedule="rounds")
    rows = [attrs.evolve(interrupted.results[0], backend=name) for name in ("eager", "eager#2")]
    rows = [
        attrs.evolve(row, measurement=attrs.evolve(row.measurement, ended_by="interrupted"))
        for row in rows
    ]
    comparison = pb.Comparison(attrs.evolve(interrupted, results=tuple(rows)))
    trials, trouble = noise_trials(torch.device("cpu"), 3, None, lambda *_, **__: comparison)
    assert [trial.name for trial in trials] == ["device_bound"]
    assert not trials[0].is_conclusive
    assert trouble == "interrupted"


def test_a_trial_whose_rows_were_not_measured_side_by_side_is_not_conclusive():
    data = comparison_data(schedule="restarts")
    rows = tuple(attrs.evolve(data.results[0], backend=name) for name in ("eager", "eager#2"))
    trial = noise_trial("device_bound", pb.Comparison(attrs.evolve(data, results=rows)))
    assert (trial.schedule, trial.is_conclusive) == ("restarts", False)


def test_the_state_under_load_is_unknown_without_memory_for_the_load():
    def load() -> None:
        raise torch.cuda.OutOfMemoryError

    assert state_under_load(torch.device("cpu"), load) is None


def test_a_missing_device_raises():
    with pytest.raises(WorkloadError, match="device 'cuda:77' cannot be used"):
        pb.examine("cuda:77")


@pytest.mark.parametrize("replicas", [1, 100, "3"])
def test_an_invalid_number_of_replicas_raises(replicas):
    with pytest.raises(SpecError, match=f"replicas is {replicas!r}"):
        pb.examine("cpu", replicas=replicas)


def test_the_command_prints_lines_or_only_json(examination, monkeypatch):
    calls: list[tuple[Any, Any]] = []

    def examine(device: Any, *, quick: bool, **_: Any) -> pb.Examination:
        calls.append((device, quick))
        return examination

    monkeypatch.setattr("precisionbench.doctor.examine.examine", examine)
    runner = CliRunner()
    plain = runner.invoke(main, ["examine", "--device", "cpu", "--quick"])
    assert plain.exit_code == 0
    assert "launch overhead" in plain.stdout
    assert max(map(len, plain.stdout.splitlines())) <= 80
    document = json.loads(
        runner.invoke(main, ["examine", "--device", "cpu", "--quick", "--json"]).stdout
    )
    assert calls == [("cpu", True)] * 2
    assert document["format"] == "precisionbench.examination"
    assert {check["state"] for check in document["checks"]} <= {"good", "attention", "unknown"}
    assert document["readings"]["rates"]["fp32"] > 0
